// Chooses the model that answers, and a second one to compare it with. Python's side is views/models.py.
// Input: {models: [{name, real, state, reason, description, window, remote}], model, rival}: names, `rival` may be "".
// Output: `choice`, {for: "model" or "rival", name, nonce}: what was chosen last. A state and no trigger, so that
// it is sent again with whatever comes next.
const FILTER_FROM = 8; // models

let component = null; // as it was passed last
let bar = null;
let drawn = ""; // the JSON that the bar shows

const element = (tag, className = "", text = "") => {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
};
const choose = (which, name) => component.setStateValue("choice", { nonce: Math.random(), for: which, name });

const popup = element("div", "menu models");
popup.hidden = true;
document.body.append(popup);
let opener = ""; // "model" or "rival", whose list is open

function close(focus = false) {
  if (popup.hidden) return;
  popup.hidden = true;
  const button = bar.querySelector(`[data-which="${opener}"]`);
  button?.setAttribute("aria-expanded", "false");
  if (focus) button?.focus();
  opener = "";
}

function dot(state) {
  const made = element("span", `state ${state}`);
  made.setAttribute("aria-hidden", "true");
  return made;
}

function option(model, chosen) {
  const made = element("button", "option");
  made.type = "button";
  made.dataset.name = model.name;
  made.setAttribute("role", "option");
  made.setAttribute("aria-selected", String(model.name === chosen));
  const names = element("span", "names");
  names.append(element("strong", "", model.name));
  if (model.real && model.real !== model.name) names.append(" ", element("span", "real", model.real));
  const facts = [
    model.description,
    model.window && `${model.window.toLocaleString("en")} tokens of context`,
    model.remote && `remote: ${model.remote} answers, outside this service`,
    model.state !== "ready" && model.reason,
  ];
  const text = element("span", "text");
  text.append(names, element("span", "facts", facts.filter(Boolean).join(" · ")));
  made.append(dot(model.state), text, element("span", "word", [model.state !== "ready" && model.state, model.name === chosen && "✓"].filter(Boolean).join(" ")));
  return made;
}

function options() {
  const { models } = component.data;
  const which = opener;
  const box = popup.querySelector('[role="listbox"]');
  const words = popup.querySelector("input")?.value.toLowerCase().split(/\s+/) ?? [];
  const focused = document.activeElement?.dataset?.name;
  const offered = models.filter((each) => which !== "rival" || each.name !== component.data.model);
  const matching = offered.filter((each) =>
    words.every((word) => `${each.name} ${each.real} ${each.description}`.toLowerCase().includes(word)));
  box.replaceChildren(...matching.map((each) => {
    const made = option(each, component.data[which]);
    made.onclick = () => {
      close(true);
      choose(which, each.name);
    };
    return made;
  }));
  if (focused) box.querySelector(`[data-name="${CSS.escape(focused)}"]`)?.focus();
}

function open(which, button) {
  const again = opener === which;
  close();
  if (again) return;
  opener = which;
  button.setAttribute("aria-expanded", "true");
  const box = element("div");
  box.setAttribute("role", "listbox");
  box.setAttribute("aria-label", which === "model" ? "Model" : "Compare with");
  popup.replaceChildren(box);
  if (component.data.models.length >= FILTER_FROM) {
    const filter = element("input");
    filter.placeholder = "Find a model";
    filter.setAttribute("aria-label", "Find a model");
    filter.oninput = options;
    popup.prepend(filter);
  }
  popup.hidden = false;
  options();
  const { left, bottom } = button.getBoundingClientRect();
  popup.style.left = `${Math.max(8, Math.min(left, window.innerWidth - popup.offsetWidth - 8))}px`;
  popup.style.top = `${bottom + 4}px`;
  popup.style.maxHeight = `${Math.max(120, window.innerHeight - bottom - 16)}px`;
  (popup.querySelector("input") ?? popup.querySelector('[aria-selected="true"]') ?? popup.querySelector("button"))?.focus();
}

popup.onkeydown = (event) => {
  const items = [...popup.querySelectorAll("input, button")];
  const at = items.indexOf(document.activeElement);
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (event.key === "Escape") close(true);
  else if (event.key === "Tab") return close();
  else if (step) items[(at + step + items.length) % items.length].focus();
  else if (event.key === "Enter" && document.activeElement.matches("input")) popup.querySelector(".option")?.click();
  else return;
  event.preventDefault();
  event.stopPropagation();
};
document.addEventListener("pointerdown", (event) => {
  if (!popup.contains(event.target) && !event.target.closest?.("[data-which]")) close();
}, true);
window.addEventListener("resize", () => close());

function chip(which, label, model, name) {
  const button = element("button", "chip");
  button.type = "button";
  button.dataset.which = which;
  button.setAttribute("aria-haspopup", "listbox");
  button.setAttribute("aria-expanded", String(opener === which));
  const state = model?.state ?? "unknown";
  button.title = model?.reason ?? "";
  button.append(dot(state), element("span", "name", name), " ", element("span", "word", [model?.remote && `remote: ${model.remote}`, !["ready", "unknown"].includes(state) && state].filter(Boolean).join(" ")));
  button.setAttribute("aria-label", `${label}: ${button.textContent.trim()}`);
  button.onclick = () => open(which, button);
  return button;
}

function draw() {
  const { models, model, rival } = component.data;
  const source = JSON.stringify([models, model, rival]);
  if (source === drawn) return;
  drawn = source;
  const focused = bar.contains(document.activeElement) ? document.activeElement.dataset.which : null;
  const find = (name) => models.find((each) => each.name === name);
  bar.replaceChildren(chip("model", "Model", find(model), model || "No model"));
  if (rival) {
    const remove = element("button", "remove", "×");
    remove.type = "button";
    remove.title = "Stop comparing";
    remove.setAttribute("aria-label", "Stop comparing");
    remove.onclick = () => choose("rival", "");
    bar.append(element("span", "versus", "and"), chip("rival", "Compared with", find(rival), rival), remove);
  } else if (rival !== undefined && models.length > 1) {
    const compare = element("button", "remove", "+");
    compare.type = "button";
    compare.dataset.which = "rival";
    compare.title = "Compare with another model";
    compare.setAttribute("aria-label", "Compare with another model");
    compare.setAttribute("aria-haspopup", "listbox");
    compare.setAttribute("aria-expanded", String(opener === "rival"));
    compare.onclick = () => open("rival", compare);
    bar.append(compare);
  }
  if (focused) bar.querySelector(`[data-which="${focused}"]`)?.focus();
  if (opener) options();
}

function receive(passed) {
  component = passed;
  if (!bar || !passed.parentElement.contains(bar)) {
    bar = element("div", "picker");
    passed.parentElement.append(bar);
    drawn = "";
  }
  draw();
}
