// The photo in the middle: its faces, what is done to each, before and after, and what came of it.

import { byId, doing, errorText, h, note, post, say, write } from "./dom.js";
import { Compare } from "./compare.js";
import { plain, removed, sentences } from "./sentences.js";
import { coverable, retryable, selected, store } from "./store.js";

const CHOICES = ["protect", "blur", "leave"];
const SETTLE = 500; // milliseconds without a change, after which a preview is worth while

let shown = null;
let sketchTimer = 0;

/** Shows the selected photo as it now is. */
export function showPhoto() {
  const photo = selected();
  const place = byId("photo");
  if (!photo) {
    shown = null;
    place.replaceChildren(h("p", { className: "soft" }, say("none.chosen")));
    return;
  }
  if (shown?.id !== photo.id) {
    shown?.compare.blink(false);
    shown = build(photo);
    place.replaceChildren(...shown.parts);
  }
  update(photo);
}

function build(photo) {
  const view = { id: photo.id, faces: [], key: "", wanted: "" };
  view.title = h("h2", {}, photo.name);
  view.facts = h("p", { className: "soft" });
  view.remove = h("button", { className: "small", type: "button", onclick: doing(() => post(`photos/${photo.id}`, { do: "remove" })) }, say("remove"));
  view.remove.setAttribute("aria-label", say("remove.label", { name: photo.name }));
  view.problem = h("p", { className: "verdict tone-failed", hidden: true });
  view.details = h("details", { hidden: true }, h("summary", {}, say("error.details")), h("p", { className: "soft" }));
  view.verdict = h("section", { hidden: true });
  view.image = h("img", { alt: photo.name, hidden: true });
  view.outlines = h("div", { role: "group" });
  view.outlines.setAttribute("aria-label", say("faces"));
  view.stage = h("div", { className: "stage" }, view.image, view.outlines);
  view.waiting = h("p", { className: "placeholder" }, say("state.waiting"));
  view.count = h("h3", {});
  view.help = h("p", { className: "soft" }, say("faces.help"));
  view.rows = h("div", {});
  view.compare = new Compare();
  view.removed = h("section", { hidden: true });
  view.one = h("button", { type: "button", onclick: doing(() => protect(view.id)) }, say("protect.one"));
  view.facePart = h("div", {}, view.count, view.help, view.rows, h("p", { className: "buttons" }, view.one));
  view.columns = h("div", { className: "columns" }, h("div", {}, view.waiting, view.stage, view.facePart), h("div", {}, view.compare.element, view.removed));
  view.parts = [h("div", { className: "row" }, h("div", {}, view.title, view.facts), view.remove), view.problem, view.details, view.verdict, view.columns];
  return view;
}

async function protect(id) {
  const photo = store.photos.get(id);
  if (photo.state === "queued" || photo.state === "working") await post("work", { do: "cancel", photos: [id] });
  else await post("work", { do: "protect", photos: [id] });
}

function update(photo) {
  const view = shown;
  const size = photo.width ? `${photo.width} × ${photo.height}, ${photo.format}` : "";
  write(view.facts, [size, progressOf(photo) || stateOf(photo)].filter(Boolean).join(" · "));
  const failed = photo.state === "failed" && photo.error;
  view.problem.hidden = !failed;
  if (failed) write(view.problem, errorText(photo.error));
  view.details.hidden = !(failed && photo.error.message);
  if (failed) write(view.details.lastChild, [photo.error.message, photo.error.hint].join(" "));
  const pictured = Boolean(photo.width);
  view.waiting.hidden = pictured || failed;
  view.image.hidden = !pictured;
  if (pictured && !view.image.getAttribute("src")) view.image.src = `photos/${photo.id}/shown.jpg`;
  const known = photo.faces.length > 0;
  view.facePart.hidden = !known && photo.state !== "ready";
  view.columns.lastChild.hidden = !known;
  write(view.count, say("faces.found", { n: photo.faces.length }));
  updateFaces(view, photo);
  updateVerdict(view, photo);
  view.compare.update(photo);
  const busy = photo.state === "queued" || photo.state === "working";
  view.one.hidden = !known;
  write(view.one, busy ? say("cancel") : photo.state === "done" ? say("protect.again") : say("protect.one"));
  view.one.disabled = !busy && photo.faces.every((face) => face.choice === "leave");
  wantSketch(view, photo);
}

/** Where a photo stands, in words. */
export function stateOf(photo) {
  const left = photo.state === "ready" && photo.faces.every((face) => face.choice === "leave");
  return say(left ? "state.left" : `state.${photo.state}`);
}

export function progressOf(photo) {
  const { progress } = photo;
  if (!progress) return "";
  const share = progress.total > 1 ? ` ${Math.round((100 * progress.done) / progress.total)} %` : "";
  return say(`stage.${progress.stage}`) + share;
}

function updateFaces(view, photo) {
  const key = JSON.stringify(photo.faces.map((face) => [face.number, face.box]));
  if (view.key !== key) {
    view.key = key;
    view.faces = photo.faces.map((face) => buildFace(photo, face));
    view.outlines.replaceChildren(...view.faces.map((face) => face.outline));
    view.rows.replaceChildren(...view.faces.map((face) => face.row));
  }
  if (photo.rough && !photo.faces.length && photo.state === "looking") view.outlines.replaceChildren(...photo.rough.map((box) => place(h("span", { className: "rough" }), box, photo)));
  const idle = ["ready", "done", "failed"].includes(photo.state);
  photo.faces.forEach((face, at) => {
    const { outline, row, radios, me, said } = view.faces[at];
    outline.dataset.choice = face.choice;
    outline.disabled = !idle;
    outline.setAttribute("aria-label", say("face.label", { n: face.number, choice: say(`choice.${face.choice}`) }));
    for (const radio of radios) {
      radio.checked = radio.value === face.choice;
      radio.disabled = !idle;
    }
    const picked = store.album.person;
    me.hidden = !photo.known || (picked?.photo === photo.id && picked.face === face.number);
    me.disabled = !idle;
    const outcome = photo.result?.faces.find((one) => one.number === face.number);
    const lines = [];
    if (face.small && !outcome) lines.push(say("face.small"));
    if (outcome) lines.push(...sentences(photo.result, face.number));
    const chip = outcome?.verdict ? h("span", { className: `chip tone-${outcome.verdict}` }, say(`verdict.${outcome.verdict}`)) : null;
    const told = outcome ? h("span", { className: "soft" }, say(`treatment.${outcome.treatment}`)) : null;
    const state = JSON.stringify([lines, outcome?.verdict, outcome?.treatment]);
    if (row.dataset.state !== state) {
      row.dataset.state = state;
      said.replaceChildren(...[chip, chip && " ", told].filter(Boolean), ...(lines.length ? [h("ul", {}, ...lines.map((line) => h("li", {}, line)))] : []));
      said.hidden = !said.childNodes.length;
    }
  });
}

/** Puts an outline where a face is. */
function place(outline, [left, top, right, bottom], photo) {
  outline.style.left = `${(100 * left) / photo.width}%`;
  outline.style.top = `${(100 * top) / photo.height}%`;
  outline.style.width = `${(100 * (right - left)) / photo.width}%`;
  outline.style.height = `${(100 * (bottom - top)) / photo.height}%`;
  return outline;
}

function buildFace(photo, face) {
  const outline = h("button", { type: "button", onclick: doing(() => choose(photo.id, face.number, next(photo.id, face.number))) }, h("span", {}, String(face.number)));
  place(outline, face.box, photo);
  const group = h("div", { className: "segments", role: "radiogroup" });
  group.setAttribute("aria-label", say("face", { n: face.number }));
  const radios = CHOICES.map((choice) => {
    const radio = h("input", { type: "radio", name: `face-${photo.id}-${face.number}`, value: choice, onchange: doing(() => choose(photo.id, face.number, choice)) });
    group.append(h("label", {}, radio, say(`choice.${choice}`)));
    return radio;
  });
  const me = h("button", { className: "small", type: "button", onclick: doing(async () => {
    await post(`photos/${photo.id}`, { do: "pick", face: face.number });
    note(say("me.on"));
  }) }, say("me"));
  me.setAttribute("aria-label", say("me.label", { n: face.number }));
  const said = h("div", { hidden: true });
  const row = h("div", { className: "face-row" }, h("b", {}, say("face", { n: face.number })), group, me, said);
  outline.addEventListener("focus", () => shown.compare.photo && photo.faces.length <= 40 && shown.compare.look(String(face.number)));
  return { outline, row, radios, me, said };
}

function next(id, number) {
  const face = store.photos.get(id).faces.find((one) => one.number === number);
  return CHOICES[(CHOICES.indexOf(face.choice) + 1) % CHOICES.length];
}

const choose = (id, number, choice) => post(`photos/${id}`, { do: "choose", face: number, choice });

function updateVerdict(view, photo) {
  const result = photo.state === "done" ? photo.result : null;
  view.verdict.hidden = view.removed.hidden = !result;
  const state = result ? JSON.stringify([result, photo.released, photo.saved]) : "";
  if (view.judged === state || !result) return;
  view.judged = state;
  const told = result.verdict === "protected" && !result.independent ? say("plain.unconfirmed") : plain(result);
  const onPhoto = sentences(result, null);
  const parts = [h("h3", {}, say(`headline.${result.verdict}`)), h("p", {}, told)];
  if (onPhoto.length) parts.push(h("ul", {}, ...onPhoto.map((line) => h("li", {}, line))));
  const buttons = h("p", { className: "buttons" });
  if (result.held) {
    parts.push(h("p", { className: "held" }, say(photo.released ? "taken" : "held")));
    buttons.append(h("button", { className: "small", type: "button", onclick: doing(() => post(`photos/${photo.id}`, { do: "release", taken: !photo.released })) }, say(photo.released ? "release.undo" : "release")));
  }
  if (retryable(photo)) buttons.prepend(h("button", { className: "small", type: "button", onclick: doing(() => post("work", { do: "retry", photos: [photo.id] })) }, say("retry", { n: 1 })));
  if (coverable(photo)) buttons.prepend(h("button", { className: "small", type: "button", onclick: doing(() => post("work", { do: "cover", photos: [photo.id] })) }, say("coverup", { n: 1 })));
  if (photo.deliverable) buttons.prepend(h("a", { className: result.held ? "button" : "button main", href: `photos/${photo.id}/result`, download: "" }, say("download")));
  buttons.append(h("button", { className: "small", type: "button", onclick: () => byId("open-threats").click() }, say("threats")));
  buttons.append(h("a", { href: `photos/${photo.id}/report`, download: "", title: say("report.help") }, say("report")));
  if (result.restorable) buttons.append(h("a", { href: `photos/${photo.id}/kept`, download: "" }, say("kept")));
  parts.push(buttons);
  if (photo.saved) parts.push(h("p", { className: "soft" }, say("saved.at", { place: photo.saved })));
  view.verdict.className = `verdict tone-${result.verdict}`;
  view.verdict.replaceChildren(...parts);
  const gone = removed(result);
  view.removed.replaceChildren(h("h3", {}, say("removed")), gone.length ? h("ul", { className: "removed" }, ...gone.map((line) => h("li", {}, line))) : h("p", { className: "soft" }, say("removed.none")));
}

/** A preview of what was asked for last, once nothing changed for a moment. */
function wantSketch(view, photo) {
  if (photo.state !== "ready" || !photo.faces.length || photo.faces.every((face) => face.choice === "leave")) return;
  const { wishes, files } = store.album;
  const wanted = JSON.stringify([photo.faces.map((face) => face.choice), photo.strength ?? wishes.strength, wishes.method, wishes.cover, files, store.album.opens]);
  if (view.wanted === wanted) return;
  const first = !view.wanted;
  view.wanted = wanted;
  clearTimeout(sketchTimer);
  sketchTimer = setTimeout(() => post(`photos/${photo.id}`, { do: "sketch" }).catch(() => {}), first ? 0 : SETTLE);
}
