// Elements, requests and texts: what the other modules share.

export const byId = (id) => document.getElementById(id);

/** An element with properties, listeners (on…), data and children. */
export function h(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name in made && name !== "list") made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/** Sets a text only where it differs, so that screen readers and selections are left in peace. */
export function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

let texts = {};
let plural = new Intl.PluralRules("en");

let loading = null;

/** Resolves once the page has its words; they are asked for once. */
export const loadTexts = () => (loading ??= fetchTexts());

async function fetchTexts() {
  const language = document.documentElement.lang;
  plural = new Intl.PluralRules(language);
  texts = await (await fetch(`texts/${language}`)).json();
}

export const knows = (key) => key in texts;
export const list = (key) => texts[key];

/** A text by key; {n} chooses the plural's form. */
export function say(key, values = {}) {
  let text = texts[key] ?? key;
  if (typeof text === "object") text = text[plural.select(values.n)] ?? text.other;
  return text.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? values[name] : whole));
}

export function listed(words, type = "conjunction") {
  return new Intl.ListFormat(document.documentElement.lang, { type }).format(words);
}

export function number(value, digits = 2) {
  return value.toLocaleString(document.documentElement.lang, { maximumFractionDigits: digits, minimumFractionDigits: digits });
}

/** What went wrong, as the server says it. */
export class Trouble extends Error {
  constructor(about) {
    super(about.message || about.code);
    this.about = about;
  }
}

export function errorText(about) {
  const key = `error.${about.code}`;
  if (knows(key) && about.code !== "usage") return say(key);
  return [about.message || say("error"), about.hint].filter(Boolean).join(" ");
}

export async function post(path, values) {
  const answer = await fetch(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(values) });
  return answered(answer);
}

export async function send(path, file) {
  const answer = await fetch(path, { method: "POST", headers: { "Content-Type": "application/octet-stream", "X-Name": encodeURIComponent(file.name || "photo") }, body: file });
  return answered(answer);
}

async function answered(answer) {
  const values = await answer.json().catch(() => ({ code: "error" }));
  if (!answer.ok) throw new Trouble(values);
  return values;
}

let clearing = 0;
export function note(text) {
  clearTimeout(clearing);
  write(byId("note"), text);
  clearing = setTimeout(() => write(byId("note"), ""), 12000);
}

/** Does what a button asks, and tells of trouble. */
export const doing = (work) => async (event) => {
  try {
    await work(event);
  } catch (error) {
    note(error instanceof Trouble ? errorText(error.about) : say("error"));
  }
};

export function ask(text) {
  const dialog = byId("ask");
  write(byId("ask-text"), text);
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true }));
}

/** Time for people: seconds, minutes or hours. */
export function duration(seconds) {
  if (seconds < 90) return say("time.seconds", { n: Math.max(5, Math.round(seconds / 5) * 5) });
  if (seconds < 5400) return say("time.minutes", { n: Math.round(seconds / 60) });
  return say("time.hours", { n: Math.round(seconds / 3600) });
}
