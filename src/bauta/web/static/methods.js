// Methods, and what some of them need beside a photo: a fitted file, a key, a text, a likeness; and taking masks off.

import { byId, doing, errorText, h, post, say, send, write } from "./dom.js";
import { photos, store } from "./store.js";

let built = "";
let ownerShown = null;

const methods = () => store.album.abilities?.methods ?? [];
const current = () => methods().find((method) => method.name === store.album.wishes.method);

export function setUpMethods() {
  byId("method").addEventListener("change", doing((event) => post("wishes", { method: event.target.value })));
  byId("erasable").addEventListener("change", doing(async (event) => {
    const erasable = event.target.checked; // what is stripped keeps no way back
    if (erasable && !store.album.files.owner) await newOwner();
    await post("wishes", erasable ? { erasable, metadata: "private" } : { erasable });
  }));
  byId("open-tools").addEventListener("click", () => {
    showTools(true);
    byId("tools").showModal();
  });
}

const newOwner = () => send("files/owner?new=1", new File([], "me.key"));

export function showMethods() {
  const { erasable } = store.album.wishes;
  byId("erasable").checked = erasable;
  const held = erasable ? store.album.files.owner : null;
  if (held !== ownerShown) {
    ownerShown = held;
    byId("owner").replaceChildren(...(erasable ? [owner()] : []));
    byId("owner").hidden = !erasable;
  }
  const select = byId("method");
  const names = methods().map((method) => method.name);
  if (select.options.length !== names.length) select.replaceChildren(...names.map((name) => h("option", { value: name }, name)));
  select.value = store.album.wishes.method;
  const method = current();
  write(byId("method-about"), method?.summary ?? "");
  const state = JSON.stringify([method, store.album.files, store.album.chore?.state, store.album.opens, learnable().length]);
  if (state !== built) {
    built = state;
    byId("method-needs").replaceChildren(...(method ? needs(method) : []));
  }
  if (store.album.chore?.state === "working") for (const told of document.querySelectorAll(".chore")) write(told, working());
  byId("open-tools").hidden = !methods().length;
  showTools(false);
}

/** A control that keeps a file for the method. */
function keeper(kind, label) {
  const name = store.album.files[kind] ?? say("method.file.none");
  const input = h("input", { type: "file", hidden: true, onchange: doing(async () => input.files[0] && (await send(`files/${kind}`, input.files[0]))) });
  input.setAttribute("aria-label", label);
  const button = h("button", { className: "small", type: "button", onclick: () => input.click() }, say("method.file"));
  button.setAttribute("aria-label", `${label}: ${say("method.file")}`);
  return h("div", { className: "need" }, h("b", {}, label), h("p", { className: "soft" }, name), h("p", { className: "buttons" }, button, input));
}

/** The key that takes masks off again. */
function owner() {
  const part = keeper("owner", say("owner"));
  if (store.album.files.owner) part.append(h("p", {}, h("a", { href: "files/owner", download: "" }, say("method.keep"))));
  return part;
}

function needs(method) {
  const parts = method.needs.length || method.fits ? [h("p", {}, say("method.needs"))] : [];
  if (method.needs.includes("fitted") || method.fits) {
    const part = keeper("fitted", say("method.fitted"));
    if (method.sealed) part.append(passphrase());
    if (method.fits) {
      const mine = learnable();
      const n = mine.length;
      const button = h("button", { className: "small", type: "button", disabled: n < 2 || (method.sealed && !store.album.opens) || store.album.chore?.state === "working" }, say("method.fit"));
      button.addEventListener("click", doing(() => post("fit", { method: method.name, photos: learnable().map((photo) => photo.id) })));
      part.append(h("p", { className: "soft" }, say("method.fit.help", { n })), button);
    }
    if (store.album.files.fitted) part.append(" ", h("a", { href: "files/fitted", download: "" }, say("method.keep")));
    if (store.album.chore?.kind === "fit") part.append(choreText());
    parts.push(part);
  }
  if (method.needs.includes("key")) {
    const part = keeper("key", say("method.key"));
    part.append(h("button", { className: "small", type: "button", onclick: doing(() => send("files/key?new=1", new File([], "bauta.key"))) }, say("method.key.new")));
    if (store.album.files.key) part.append(" ", h("a", { href: "files/key", download: "" }, say("method.keep")));
    parts.push(part);
  }
  if (method.needs.includes("reference")) parts.push(keeper("reference", say("method.reference")));
  if (method.needs.includes("message")) {
    const input = h("input", { type: "text", id: "message", value: store.album.wishes.message, maxLength: 500, onchange: doing(() => post("wishes", { message: input.value })) });
    parts.push(h("div", { className: "need" }, h("label", { htmlFor: "message" }, h("b", {}, say("method.message"))), input));
  }
  return parts;
}

/** Photos to learn a person from: whose largest face is theirs, once somebody was picked. */
const learnable = () => photos().filter((photo) => photo.faces.length && (!store.album.picked || photo.faces[0].choice === "protect"));

function passphrase() {
  const input = h("input", { type: "password", autocomplete: "off", placeholder: store.album.opens ? "••••••••••••" : "", onchange: doing(() => post("passphrase", { text: input.value })) });
  input.setAttribute("aria-label", say("method.passphrase"));
  return h("div", {}, h("p", {}, say("method.passphrase"), h("br"), input), h("p", { className: "soft" }, say("method.passphrase.help")));
}

/** How far a long chore is. */
function working() {
  const progress = store.album.chore?.progress;
  if (!progress) return say("chore.working");
  const share = progress.total > 1 ? ` ${Math.round((100 * progress.done) / progress.total)} %` : "";
  return say(`stage.${progress.stage}`) + share;
}

function choreText() {
  const { chore } = store.album;
  if (chore.state === "working") return h("p", { role: "status", className: "chore" }, working());
  if (chore.state === "failed") return h("p", { role: "status" }, errorText(chore.error));
  if (chore.kind === "fit") return h("p", { role: "status" }, say("chore.fitted", { n: chore.answer.photos }));
  if (chore.kind === "restore") return h("p", { role: "status" }, say("tools.restored"), " ", h("a", { href: "files/restored", download: "" }, say("download")));
  return h("ul", { role: "status" }, ...chore.answer.readings.map((one, at) => h("li", {}, one.message === null ? say("tools.nothing", { n: at + 1 }) : say("tools.says", { n: at + 1, message: one.message, odds: Math.round(1 / Math.max(one.chance, 1e-12)).toLocaleString() }))));
}

let toolsBuilt = "";

function showTools(anew) {
  const able = methods().filter((one) => one.restores || one.reads);
  const state = JSON.stringify([able, store.album.files, store.album.chore, store.album.opens]);
  if (!anew && (state === toolsBuilt || !byId("tools").open)) return;
  toolsBuilt = state;
  const body = byId("tools-body");
  const before = body.querySelector("select")?.value;
  const file = body.querySelector("input.photo")?.files;
  const choose = h("select", { id: "tools-method" }, h("option", { value: "" }, say("tools.any")), ...able.map((one) => h("option", { value: one.name }, one.name)));
  if (before !== undefined) choose.value = before;
  const photo = h("input", { type: "file", className: "photo", id: "tools-photo", accept: "image/*,.heic,.heif,.avif,.tif,.tiff" });
  if (file?.length) photo.files = file;
  const act = (kind) => doing(async () => photo.files[0] && (await send(`undo/${kind}?method=${encodeURIComponent(choose.value)}`, photo.files[0])));
  const method = able.find((one) => one.name === choose.value);
  choose.addEventListener("change", () => showTools(true));
  body.replaceChildren(
    ...[
      h("label", { htmlFor: "tools-method" }, say("method")),
      choose,
      h("div", { className: "need" }, h("label", { htmlFor: "tools-photo" }, h("b", {}, say("tools.photo"))), h("p", {}, photo)),
      method?.needs.includes("fitted") ? keeper("fitted", say("method.fitted")) : null,
      method?.sealed ? passphrase() : null,
      method?.needs.includes("key") ? keeper("key", say("method.key")) : null,
      method ? keeper("restore", say("tools.kept")) : keeper("owner", say("owner")),
      h("p", { className: "buttons" }, !method || method.restores ? h("button", { className: "main", type: "button", onclick: act("restore") }, say("tools.restore")) : null, method?.reads ? h("button", { className: "main", type: "button", onclick: act("read") }, say("tools.read")) : null),
      ["restore", "read"].includes(store.album.chore?.kind) ? choreText() : null,
    ].filter(Boolean),
  );
}
