// Makes elements, and asks and tells a person.

/** An element: `el("td.n", {title: "x"}, "text", child)`. Text is never taken for markup. */
export function el(name, attributes = {}, ...children) {
  const [tag, ...classes] = name.split(".");
  const made = document.createElement(tag || "div");
  if (classes.length) made.className = classes.join(" ");
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value === true) made.setAttribute(key, "");
    else made.setAttribute(key, value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

export const byId = (id) => document.getElementById(id);

export function say(text, isBad = false) {
  const message = el(isBad ? "div.message.bad" : "div.message", {}, text);
  byId("messages").append(message);
  setTimeout(() => message.remove(), isBad ? 9000 : 4000);
}

/** Ask for a confirmation. Resolves to true or false; with `typed`, only after that text was typed. */
export function confirmed(title, text, { action = "OK", isBad = true, typed = null } = {}) {
  return new Promise((resolve) => {
    const input = typed === null ? null : el("input", { autocomplete: "off", spellcheck: "false", "aria-label": "Name" });
    const go = el(isBad ? "button.bad" : "button.main", { type: "submit", disabled: typed !== null }, action);
    const cancel = el("button", { type: "button", onclick: () => dialog.close("") }, "Cancel");
    const dialog = el(
      "dialog",
      { "aria-label": title },
      el("form", { method: "dialog", onsubmit: (event) => { event.preventDefault(); if (!go.disabled) dialog.close("go"); } },
        el("h2", {}, title),
        el("p", {}, text),
        input && el("label", {}, `Type ${typed} to continue`, input),
        el("div.row", {}, cancel, go)),
    );
    if (input) input.addEventListener("input", () => { go.disabled = input.value !== typed; });
    dialog.addEventListener("close", () => { dialog.remove(); resolve(dialog.returnValue === "go"); });
    document.body.append(dialog);
    dialog.showModal();
    (input || go).focus();
  });
}
