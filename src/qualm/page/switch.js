"use strict";
(() => {
  const root = document.documentElement;
  const keep = {
    get: (name) => { try { return localStorage.getItem(name); } catch { return null; } },
    set: (name, value) => { try { localStorage.setItem(name, value); } catch { /* a file may have no storage */ } },
  };

  const theme = document.querySelector("button.theme");
  const dark = () => root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  if (["light", "dark"].includes(keep.get("qualm-theme"))) root.dataset.theme = keep.get("qualm-theme");
  theme.hidden = false;
  theme.addEventListener("click", () => { root.dataset.theme = dark() ? "light" : "dark"; keep.set("qualm-theme", root.dataset.theme); });

  const language = document.querySelector("button.language");
  const wanted = keep.get("qualm-language") || navigator.language.slice(0, 2);
  if (wanted === "zh") root.lang = "zh";
  language.hidden = false;
  language.addEventListener("click", () => { root.lang = root.lang === "zh" ? "en" : "zh"; keep.set("qualm-language", root.lang); });
})();
