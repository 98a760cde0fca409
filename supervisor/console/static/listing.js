// Tables that stay where they are while their rows change, forms in dialogs, and looking again from time to time.

import { el, say } from "./dom.js";
import { linkState } from "./frame.js";

/** A table. A column is [title, value of a row, look], where a look is "n" (a number), "wrap", "mono" or "act". */
export function table(columns, rows, none = "None.") {
  if (!rows.length) return el("p.none", {}, none);
  const classed = (tag, look) => (look ? `${tag}.${look}` : tag);
  return el("table", {},
    el("thead", {}, el("tr", {}, columns.map(([title, , look]) => el(classed("th", look === "n" ? "n" : ""), { scope: "col" }, title)))),
    el("tbody", {}, rows.map((row) => el("tr", {}, columns.map(([, value, look]) => {
      const shown = value(row);
      return el(classed("td", look), {}, shown === null || shown === undefined ? "–" : shown instanceof Node || Array.isArray(shown) ? shown : String(shown));
    })))));
}

/** Put a node into a box unless nothing has changed, so that focus and selection stay. */
export function put(box, node) {
  const [before] = box.children;
  if (before && before.outerHTML === node.outerHTML) return;
  const active = box.contains(document.activeElement) ? document.activeElement : null;
  const label = active && `${active.tagName}:${active.textContent}:${active.closest("tr")?.firstElementChild?.textContent}`;
  box.replaceChildren(node);
  if (label) [...box.querySelectorAll("a, button, input")].find((each) => `${each.tagName}:${each.textContent}:${each.closest("tr")?.firstElementChild?.textContent}` === label)?.focus();
}

/** Call `look` now and again; while the page is hidden it rests. Returns a function that looks at once. */
export function repeating(look, ms = 2000) {
  let timer = 0;
  let isBusy = false;
  async function turn() {
    clearTimeout(timer);
    if (isBusy) return;
    isBusy = true;
    try {
      if (!document.hidden) { await look(); linkState("live", "live"); }
    } catch (error) {
      linkState("lost", error.message);
    } finally {
      isBusy = false;
      timer = setTimeout(turn, ms);
    }
  }
  document.addEventListener("visibilitychange", turn);
  turn();
  return turn;
}

/**
 * Ask for values in a dialog. A field is {name, label, value, type, options, hint, required}. `act` gets the values; its
 * failure is shown in the dialog, which stays. Resolves when the dialog is closed, to true after a success.
 */
export function filled(title, fields, action, act, extra = null) {
  return new Promise((resolve) => {
    const failure = el("p.failure", { role: "alert", hidden: true });
    const inputs = fields.map((field) => {
      const attributes = { name: field.name, required: field.required, autocomplete: "off", spellcheck: "false" };
      let input;
      if (field.type === "select") input = el("select", attributes, field.options.map((option) => el("option", { value: option, selected: option === field.value }, option)));
      else if (field.type === "textarea") input = el("textarea", { ...attributes, rows: field.rows || 6 }, field.value ?? "");
      else input = el("input", { ...attributes, type: field.type || "text", value: field.value ?? "", placeholder: field.placeholder, step: field.step });
      if (field.type === "checkbox") { input.checked = Boolean(field.value); return el("label.check", {}, input, field.label); }
      return el("label", {}, field.label, input, field.hint && el("span.hint", {}, field.hint));
    });
    const go = el("button.main", { type: "submit" }, action);
    const form = el("form", { onsubmit: async (event) => {
      event.preventDefault();
      const values = Object.fromEntries(fields.map((field) => [field.name, field.type === "checkbox" ? form.elements[field.name].checked : form.elements[field.name].value]));
      go.disabled = true;
      failure.hidden = true;
      try {
        const keeps = await act(values, dialog);
        if (!keeps) dialog.close("done");
      } catch (error) {
        failure.textContent = error.message;
        failure.hidden = false;
      } finally {
        go.disabled = false;
      }
    } }, el("h2", {}, title), inputs, extra, failure, el("div.row", {}, el("button", { type: "button", onclick: () => dialog.close("") }, "Cancel"), go));
    const dialog = el("dialog", { "aria-label": title }, form);
    dialog.addEventListener("close", () => { dialog.remove(); resolve(dialog.returnValue === "done"); });
    document.body.append(dialog);
    dialog.showModal();
  });
}

/** Settings as lines of KEY=VALUE; numbers, true and false are taken as such. */
export function settings(text) {
  const found = {};
  for (const line of text.split("\n").map((each) => each.trim()).filter(Boolean)) {
    const at = line.indexOf("=");
    if (at < 1) throw new Error(`${line}: is not KEY=VALUE`);
    const value = line.slice(at + 1).trim();
    found[line.slice(0, at).trim()] = /^-?\d+(\.\d+)?$/.test(value) ? Number(value) : value === "true" ? true : value === "false" ? false : value === "null" ? null : value;
  }
  return found;
}

export const parameter = (name) => new URLSearchParams(location.search).get(name) ?? "";
export const linkTo = (page, name, text) => el("a", { href: `/${page}?${new URLSearchParams({ [page === "messages" ? "topic" : page]: name })}` }, text ?? name);
export { say };
