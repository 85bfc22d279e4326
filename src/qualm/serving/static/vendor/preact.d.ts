export function html(strings: TemplateStringsArray, ...values: any[]): any;
export function render(view: any, root: Element): void;
export function useState<T>(first: T): [T, (next: T | ((now: T) => T)) => void];
export function useEffect(effect: () => void | (() => void), inputs?: readonly any[]): void;
export function useRef<T>(first: T): { current: T };
