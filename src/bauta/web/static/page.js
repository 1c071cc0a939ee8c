// The page: everything is drawn from what the server says, so that a reload or a second tab shows the same.

import { ask, byId, doing, errorText, h, loadTexts, note, post, say, write } from "./dom.js";
import { setUpMethods, showMethods } from "./methods.js";
import { setUpPanel, showPanel } from "./panel.js";
import { progressOf, showPhoto, stateOf } from "./photo.js";
import { measured, never } from "./sentences.js";
import { follow, listen, photos, select, selected, store } from "./store.js";
import { setUpTaking } from "./taking.js";

const cards = new Map();
let ended = false;

function showStrip(changed) {
  const strip = byId("strip");
  for (const [id, card] of cards) {
    if (!store.photos.has(id)) {
      card.item.remove();
      cards.delete(id);
    }
  }
  photos().forEach((photo, at) => {
    let card = cards.get(photo.id);
    if (!card) {
      card = buildCard(photo);
      cards.set(photo.id, card);
      strip.append(card.item);
    } else if (!changed.has(photo.id) && card.selected === (store.selected === photo.id)) return;
    updateCard(card, photo);
  });
  write(byId("count"), String(store.order.length));
}

function buildCard(photo) {
  const picture = h("span", { className: "empty" });
  const state = h("span", { className: "state" });
  const button = h("button", { type: "button", onclick: () => open(photo.id) }, picture, h("span", { className: "name" }, photo.name), state);
  return { item: h("li", {}, button), button, picture, state, selected: null };
}

function open(id) {
  select(id);
  if (matchMedia("(max-width: 759px)").matches) byId("photo").scrollIntoView({ block: "start" });
}

function updateCard(card, photo) {
  if (photo.width && card.picture.tagName !== "IMG") {
    const image = h("img", { src: `photos/${photo.id}/thumb.jpg`, alt: "", loading: "lazy" });
    card.picture.replaceWith(image);
    card.picture = image;
  }
  card.selected = store.selected === photo.id;
  card.button.setAttribute("aria-current", String(card.selected));
  const verdict = photo.state === "done" ? photo.result.verdict : photo.state === "failed" ? "failed" : "";
  card.state.className = verdict ? `state tone-${verdict}` : "state";
  write(card.state, photo.state === "done" ? say(`verdict.${verdict}`) : progressOf(photo) || stateOf(photo));
}

function showThreats() {
  const result = selected()?.state === "done" ? selected().result : null;
  write(byId("threats-on"), say(result ? "threats.measured" : "threats.photo"));
  const rows = result ? measured(result).map(({ text, held }) => h("li", { className: held ? "" : "undone" }, text)) : [];
  byId("threats-measured").replaceChildren(...rows);
  byId("threats-on").hidden = byId("threats-measured").hidden = !rows.length;
  byId("threats-never").replaceChildren(...never(result).map((text) => h("li", {}, text)));
}

/** Says aloud what became of photos, each once. */
const said = new Map();
function announce(changed) {
  for (const id of changed) {
    const photo = store.photos.get(id);
    if (!photo) continue;
    const now = photo.state === "done" ? `verdict.${photo.result.verdict}` : photo.state === "failed" ? "state.failed" : "";
    if (now && said.has(id) && said.get(id) !== now) note(`${photo.name}: ${say(now)}`);
    said.set(id, now);
  }
}

function show(changed) {
  if (!store.album) return;
  const any = store.order.length > 0;
  byId("welcome").hidden = any;
  byId("work").hidden = !any;
  if (!ended) {
    byId("trouble").hidden = !store.album.trouble;
    if (store.album.trouble) write(byId("trouble"), errorText(store.album.trouble));
  }
  showStrip(changed);
  showPhoto();
  showPanel();
  showMethods();
  announce(changed);
}

function lost(gone) {
  if (ended) return;
  byId("trouble").hidden = !gone;
  write(byId("trouble"), gone ? say("lost") : "");
}

setUpTaking(); // before anything is waited for, lest a photo be dropped that nobody takes
await loadTexts();
setUpPanel();
setUpMethods();
byId("open-threats").addEventListener("click", () => {
  showThreats();
  byId("threats").showModal();
});
byId("end").addEventListener("click", doing(async () => {
  if (!(await ask(say("end.sure")))) return;
  ended = true;
  await post("end", {});
  document.querySelector("main").replaceChildren(h("p", { className: "card lead" }, say("ended")));
}));
listen(show);
follow(lost);
