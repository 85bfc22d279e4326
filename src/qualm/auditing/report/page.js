"use strict";
(() => {
  const root = document.documentElement;
  const keep = {
    get: () => { try { return localStorage.getItem("qualm-theme"); } catch { return null; } },
    set: (value) => { try { localStorage.setItem("qualm-theme", value); } catch { /* a file may have no storage */ } },
  };

  const theme = document.querySelector("button.theme");
  const dark = () => root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  const wear = (value) => { root.dataset.theme = value; theme.setAttribute("aria-pressed", String(value === "dark")); };
  if (["light", "dark"].includes(keep.get())) wear(keep.get());
  theme.hidden = false;
  theme.addEventListener("click", () => { wear(dark() ? "light" : "dark"); keep.set(root.dataset.theme); });

  for (const button of document.querySelectorAll("button.fold")) {
    const parts = document.getElementById(button.getAttribute("aria-controls"));
    const fold = (open) => { parts.hidden = !open; button.setAttribute("aria-expanded", String(open)); };
    fold(Number(parts.dataset.rows) <= 6);
    button.addEventListener("click", () => fold(parts.hidden));
  }

  const dialog = document.getElementById("case");
  const inside = dialog.querySelector("div");
  for (const link of document.querySelectorAll("a.open-case")) {
    link.addEventListener("click", (event) => {
      const panel = document.getElementById(link.hash.slice(1));
      if (!panel || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      const copy = panel.cloneNode(true);
      copy.removeAttribute("id");
      for (const fold of copy.querySelectorAll("details")) fold.open = true;
      inside.replaceChildren(copy);
      dialog.showModal();
      dialog.scrollTop = 0;
    });
  }
  dialog.querySelector("button.close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });

  addEventListener("beforeprint", () => {
    for (const fold of document.querySelectorAll(".proof > details")) fold.open = true;
    for (const parts of document.querySelectorAll("tbody.parts")) parts.hidden = false;
  });
})();
