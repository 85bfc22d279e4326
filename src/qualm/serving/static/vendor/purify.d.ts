declare const DOMPurify: {
  sanitize(markup: string, options: object): string;
  addHook(name: string, hook: (node: Element) => void): void;
};
export default DOMPurify;
