export const marked: { parse(text: string, options: { async: false }): string; use(options: object): void };
