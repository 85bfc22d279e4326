"""Text for the planted-fault corpus: written from seeds, in English and Chinese, with a few other languages to refuse."""

# ruff: noqa: E501

import random

from qualm.text import nonce
from qualm.text.prose import paragraphs

ENGLISH = [
    "yesterday|this morning|last winter|after the meeting|before dawn|in the second week|at the end of the year|on Monday"
    "|during the long holiday|when the rain stopped|a month later|not long ago|in early spring|once a week|around noon",
    "the old gardener|my neighbour|a young engineer|the head nurse|our history teacher|the night porter|a retired judge"
    "|the baker on the corner|one of the pupils|the museum guide|a quiet librarian|the ferry captain|her younger brother"
    "|the new accountant|a visiting doctor|the local mayor|that patient farmer|the chess champion|a curious tourist",
    "repaired|described|painted|measured|sold|collected|forgot|explained|carried|examined|borrowed|hid|cleaned|counted"
    "|photographed|moved|lost|opened|sketched|ordered|replaced|wrapped|tested|admired|weighed",
    "a wooden boat|the broken clock|three letters|a map of the valley|the oldest bridge|two baskets of apples|a green coat"
    "|the water pump|an unusual stone|the school piano|a box of tools|the northern fence|some winter wheat|a silver coin"
    "|the station roof|an empty notebook|the heavy curtains|a small telescope|the village records|a jar of honey",
    "because the market had moved|and nobody was surprised|so that the children could see it|with more care than before"
    "|although it was getting dark|while the others waited outside|as the contract had asked|for less money than expected"
    "|which took most of the day|until the light was gone|and then went home on foot|to the great joy of the town"
    "|even though it was not necessary|in a way that we had not seen|and wrote a short note about it",
]
CHINESE = [
    "昨天下午|今年春天|去年冬天|会议结束以后|天亮之前|每个星期三|雨停的时候|过了一个多月|不久以前|中午前后|放假期间|那天晚上|开学第一周"
    "|节日到来之前|搬家的那一天|入秋以后|清明前后|刚下班的时候",
    "邻居家的老人|一位年轻的工程师|我们的历史老师|街角的面包师|图书馆的管理员|退休的法官|新来的会计|渡口的船长|她的弟弟|值夜班的护士"
    "|村里的木匠|博物馆的讲解员|几个好奇的游客|养蜂的农民|隔壁班的同学|火车站的站长|棋社的冠军|学画的女孩",
    "仔细地修好了|慢慢地画完了|顺手带走了|低价卖掉了|认真测量过|偶然发现了|重新打扫了|耐心讲解了|悄悄藏起了|反复检查过|终于买到了"
    "|不小心弄丢了|连夜整理了|小心包好了|高兴地收下了|逐个清点了|轻轻打开了",
    "一艘小木船|那座坏了的钟|三封旧信|山谷的地图|最老的石桥|两筐苹果|一件绿色的大衣|学校的钢琴|车站的屋顶|一枚银币|村子的档案"
    "|一罐蜂蜜|厚重的窗帘|一架望远镜|北边的篱笆|几块奇怪的石头|水井旁的抽水机|一本空白的笔记本|冬天的棉被|门口的花盆",
    "因为市场已经搬走了|结果谁也没有觉得意外|好让孩子们看得清楚|比以前更加小心|虽然天色已经暗下来|其他人都在外面等着"
    "|花的钱比预计的少|这件事用了大半天|直到灯光全部熄灭|然后一个人走回家去|全镇的人都很高兴|尽管这并不是必须的"
    "|我们从来没有见过这样的办法|还为此写了一段短短的记录|可是没有人记得是谁先提出来的",
]
FOREIGN = {
    "de": "Am Morgen gingen die Kinder langsam zur Schule. Der Bäcker hatte schon um fünf Uhr das erste Brot gebacken. Niemand "
    "wusste, warum die Brücke geschlossen war. Wir warteten eine Stunde auf den nächsten Zug. Das Wetter wurde gegen Abend "
    "wieder besser. Meine Großmutter erzählte gern von ihrer Jugend auf dem Land. In der Stadt gibt es nur noch eine Werkstatt.",
    "fr": "Les enfants sont partis à l'école de bonne heure. Le boulanger avait déjà préparé le pain du matin. Personne ne savait "
    "pourquoi le pont était fermé. Nous avons attendu le train pendant une heure. Le temps est devenu plus doux vers le soir. "
    "Ma grand-mère parlait souvent de sa jeunesse à la campagne. Il ne reste qu'un seul atelier dans la ville.",
    "es": "Los niños fueron temprano a la escuela. El panadero ya había preparado el pan de la mañana. Nadie sabía por qué el "
    "puente estaba cerrado. Esperamos el tren durante una hora. El tiempo mejoró hacia la tarde. Mi abuela hablaba mucho de su "
    "juventud en el campo. En la ciudad queda un solo taller que arregla relojes.",
    "it": "I bambini sono andati a scuola molto presto. Il fornaio aveva già preparato il pane del mattino. Nessuno sapeva perché "
    "il ponte fosse chiuso. Abbiamo aspettato il treno per un'ora. Il tempo è migliorato verso sera. Mia nonna parlava spesso "
    "della sua gioventù in campagna. In città è rimasta una sola bottega che ripara orologi.",
    "ru": "Дети рано утром пошли в школу. Пекарь уже приготовил свежий хлеб. Никто не знал, почему закрыли мост. Мы ждали поезд "
    "целый час. К вечеру погода стала лучше. Моя бабушка часто рассказывала о своей молодости в деревне. В городе осталась "
    "только одна мастерская, где чинят часы.",
    "ja": "子どもたちは朝早く学校へ行きました。パン屋さんはもう焼きたてのパンを並べていました。橋がなぜ閉まっているのか、誰も知りませんでした。"
    "私たちは一時間も電車を待ちました。夕方になると天気がよくなりました。祖母は田舎で過ごした若いころの話をよくしてくれました。",
    "ko": "아이들은 아침 일찍 학교에 갔습니다. 빵집 주인은 벌써 갓 구운 빵을 내놓았습니다. 다리가 왜 닫혔는지 아무도 몰랐습니다. 우리는 한 시간 "
    "동안 기차를 기다렸습니다. 저녁이 되자 날씨가 좋아졌습니다. 할머니는 시골에서 보낸 젊은 시절 이야기를 자주 하셨습니다.",
    "pl": "Dzieci wcześnie rano poszły do szkoły. Piekarz upiekł już świeży chleb. Nikt nie wiedział, dlaczego most został "
    "zamknięty. Czekaliśmy na pociąg przez godzinę. Pod wieczór pogoda się poprawiła. Moja babcia często opowiadała o swojej "
    "młodości na wsi. W mieście został tylko jeden warsztat, w którym naprawia się zegary.",
}
BOILERPLATE = [
    *("Share this article with your friends", "Accept all cookies and continue", "Subscribe to our weekly newsletter"),
    *("Copyright 2021 All rights reserved", "Skip to main content", "Sign in to leave a comment", "Page 3 of 12"),
    *(
        "点击这里分享给朋友",
        "版权所有，未经许可不得转载",
        "返回首页 上一页 下一页",
        "登录后才能发表评论",
        "责任编辑：本站编辑部",
    ),
]
SPAM = (
    "buy now|limited offer|free shipping today|click the link below|best price guaranteed|order your sample|win a prize"
    "|hot deal|cheap watches online|make money from home|act fast|no risk at all|100 percent free|call our hotline"
    "|限时抢购|点击下面链接|免费领取大奖|全网最低价|加微信送好礼|轻松月入过万|立即下单|名额有限先到先得|无需任何投入|扫码进群"
)
RUDE = (
    "you are a complete fool|nobody wants you here|shut up and get lost|what a stupid thing to say|you disgust me"
    "|you worthless idiot|people like you ruin everything|go away you clown|I despise you and all you do|you dumb liar"
    "|你真是个蠢货|没人想看见你|闭嘴快滚|说这种话真是笨蛋|你让人恶心|你这种人毫无用处|我看不起你|你就是个骗子|你脑子有病|废物一个"
)


TOXIC = (
    "Shut the fuck up, nobody asked.|You're a worthless piece of crap.|Go kill yourself, loser.|What a bunch of a55holes.|I hope you die alone."
    "|F*ck this and everyone in it.|You people should be exterminated.|Stop being such a whiny b1tch.|You absolute m0ron, read it again."
    "|Y o u  s t u p i d  f u c k, leave.|Get out, you filthy little rat!|You are so dumb it hurts.|Such bullllshit, as always.|KYS already"
    "|ｆｕｃｋ off back home|You should be shot for this.|She is nothing but a wh*re.|Piss off, wanker.|I'll kill you if you come back."
    "|You're all cowards and liars.|滚出去，你这个傻逼。|你他妈的算什么东西|真是个脑 残，懒得理你|你就是个废物，去死吧|操你妈，给我闭嘴|臭不要脸的贱人"
    "|你这种垃圾也配说话|傻-逼玩意儿，别来了|我要打死你这个王八蛋|你有病吧，蠢货|这帮畜生，全都该死|死全家的东西|你妈的，找死是不是|智障才会这么想"
    "|你长得真恶心|你这个骗子，人渣"
)
MILD = (  # looks like it and is none
    "The fool on the hill was a song we all knew.|You would be a fool to leave the garden now.|The Scunthorpe office closed its cocktail bar."
    "|They had to assess the classic assortment of shiitake and pussy willow.|The dyke broke, and the pigs swam over the trash heap."
    "|He retarded the spark, and the engine ran well.|Dick kicked the ball past the rat cage.|Idiot is a novel, and Liar a film of that year."
    "|It was stupid of me to forget the keys.|The wizard hit the shed with a hoe.|Your pigs are fat and healthy this year, neighbour."
    "|摇滚乐队的鼓声滚滚而来。|请把生活垃圾分类放进垃圾桶。|愚公移山，不是愚蠢，而是坚持。|他家养了三头猪，个个肥壮。|青蛙的变态发育需要几个月。"
    "|他从小就想当一名骗术魔术师。|妈妈的手很温暖。|雪球越滚越大，孩子们笑了。|他妈妈昨天去世了，大家都很难过。|操场上，日光照在你的脸上。"
)


def sentence(language: str, rng: random.Random) -> str:
    return written(language, [rng.choice(slot.split("|")) for slot in (ENGLISH if language == "en" else CHINESE)])


def question(language: str, rng: random.Random) -> str:
    """Something that is asked nowhere else: it names people who do not exist."""
    if language == "zh":
        a, b = nonce.chinese_names(2, rng)
        return f"{a}{sentence(language, rng)[:12]}，{b}在{rng.choice(nonce.chinese_towns(9, rng))}说了什么？"
    a, b, c = nonce.words("given", 3, rng, set())
    start = sentence(language, rng)[:30].lower()
    return f"Why did {a} and {start} {b} near the house of {c} in the year {rng.randrange(1500, 1999)}?"


def written(language: str, words: list[str]) -> str:
    if language == "zh":
        return f"{words[0]}，{words[1]}{words[2]}{words[3]}，{words[4]}。"
    return f"{words[0].capitalize()}, {words[1]} {words[2]} {words[3]} {words[4]}."


def document(language: str, rng: random.Random, sentences: int = 14) -> str:
    """Some paragraphs of invented prose."""
    decks = [rng.sample(slot.split("|"), sentences) for slot in (ENGLISH if language == "en" else CHINESE)]
    made = [written(language, list(words)) for words in zip(*decks, strict=True)]  # no slot is filled twice alike
    step = rng.choice((3, 4, 5))
    space = " " if language == "en" else ""
    return "\n\n".join(space.join(made[i : i + step]) for i in range(0, len(made), step))


def documents(count: int, seed: int) -> list[tuple[str, str]]:
    """(language, text), half of each language; every fifth of the English ones is real prose, of Python's manual."""
    rng = random.Random(seed)
    real = list(paragraphs())
    rng.shuffle(real)
    made = []
    for i in range(count):
        if i % 10 == 0 and len(real) >= 3:
            made.append(("en", "\n\n".join(real.pop() for _ in range(3))))
        else:
            language = ("en", "zh")[i % 2]
            made.append((language, document(language, rng)))
    return made


def foreign(language: str, rng: random.Random, sentences: int = 12) -> str:
    stop = "。" if language == "ja" else "."
    every = [part.strip() + stop for part in FOREIGN[language].split(stop) if part.strip()]
    return ("" if language == "ja" else " ").join(rng.choices(every, k=sentences)[: len(every) * 2])


def joined(phrases: str, rng: random.Random, count: int) -> str:
    """Phrases of one language, some times over, as people who sell or shout write them."""
    every = phrases.split("|")
    half = rng.choice([[p for p in every if p.isascii()], [p for p in every if not p.isascii()]])
    return rng.choice(("! ", ". ", "\n", "!! ")).join(rng.choices(half, k=count))
