// What is asked for the whole album, its progress, and what comes out of it.

import { byId, doing, duration, h, note, post, say, write } from "./dom.js";
import { coverable, photos, retryable, store } from "./store.js";

const busyStates = ["queued", "working"];

export function setUpPanel() {
  for (const name of ["strength", "others"]) {
    byId(name).addEventListener("change", doing((event) => post("wishes", { [name]: event.target.value })));
  }
  byId("metadata").addEventListener("change", doing((event) => post("wishes", event.target.value === "strip" ? { metadata: "strip", erasable: false } : { metadata: event.target.value })));
  byId("cover").addEventListener("change", doing((event) => post("wishes", { cover: event.target.checked })));
  byId("everybody").addEventListener("click", doing(() => post("work", { do: "everybody" })));
  byId("protect").addEventListener("click", doing(() => post("work", { do: "protect", photos: open().map((photo) => photo.id) })));
  byId("cancel").addEventListener("click", doing(() => post("work", { do: "cancel" })));
  byId("retry").addEventListener("click", doing(() => post("work", { do: "retry", photos: weak().map((photo) => photo.id) })));
  byId("coverup").addEventListener("click", doing(() => post("work", { do: "cover", photos: bare().map((photo) => photo.id) })));
  byId("beside").addEventListener("click", doing(async () => {
    const { saved, problems } = await post("work", { do: "save" });
    note([saved.length ? say("saved", { n: saved.length }) : "", ...problems.slice(0, 2).map((why) => say("saved.not", { why }))].filter(Boolean).join(" "));
  }));
  byId("into-folder").addEventListener("click", doing(saveIntoFolder));
}

/** Those that are not protected yet; with none of them, nothing. */
const open = () => photos().filter((photo) => photo.state === "ready" && photo.faces.some((face) => face.choice !== "leave"));
const done = () => photos().filter((photo) => photo.state === "done" && photo.result);
const deliverable = () => photos().filter((photo) => photo.deliverable);
const held = () => done().filter((photo) => photo.result.held && !photo.released);
const weak = () => done().filter(retryable);
const bare = () => done().filter(coverable);

export function showPanel() {
  const { album } = store;
  const { wishes } = album;
  for (const name of ["strength", "others", "metadata"]) {
    for (const input of byId(name).querySelectorAll("input")) input.checked = input.value === wishes[name];
  }
  byId("cover").checked = wishes.cover;
  byId("only").hidden = !album.picked;
  const todo = open().length;
  byId("protect").hidden = !todo && photos().some((photo) => busyStates.includes(photo.state) || photo.state === "done");
  byId("protect").disabled = !todo || !album.abilities;
  write(byId("protect"), album.abilities ? say("protect.all", { n: Math.max(1, todo) }) : say("starting"));
  const working = photos().filter((photo) => busyStates.includes(photo.state));
  byId("progress").hidden = !working.length;
  if (working.length) {
    const total = working.length + done().length;
    write(byId("progress-text"), say("working", { done: done().length, n: total }));
    write(byId("progress-left"), album.left === null ? say("left.unknown") : say("left", { time: duration(album.left) }));
    const bar = byId("progress-bar");
    bar.max = total;
    bar.value = done().length + share(working.find((photo) => photo.state === "working"));
  }
  byId("results").hidden = !done().length;
  byId("results-ready").hidden = !deliverable().length;
  write(byId("results-ready"), say("results.ready", { n: deliverable().length }));
  byId("results-held").hidden = !held().length;
  write(byId("results-held"), say("results.held", { n: held().length }));
  offer(byId("retry"), "retry", weak().length);
  offer(byId("coverup"), "coverup", bare().length);
  byId("zip").hidden = !deliverable().length;
  byId("zip").classList.toggle("main", !working.length && !todo);
  byId("beside").hidden = !deliverable().some((photo) => photo.beside && !photo.saved);
  byId("into-folder").hidden = !deliverable().length || !("showDirectoryPicker" in window);
}

function offer(button, key, n) {
  button.hidden = !n;
  write(button, say(key, { n }));
}

function share(photo) {
  const progress = photo?.progress;
  if (!progress?.total) return 0;
  const part = progress.done / progress.total;
  return progress.stage === "making the mask" ? 0.85 * part : progress.stage === "judging the result" ? 0.85 + 0.15 * part : 0;
}

/** Where the browser can: into a folder that the person chooses, under new names; nothing there is replaced. */
async function saveIntoFolder() {
  let folder;
  try {
    folder = await window.showDirectoryPicker({ mode: "readwrite" });
  } catch {
    return; // the person thought better of it
  }
  let count = 0;
  for (const photo of deliverable()) {
    const answer = await fetch(`photos/${photo.id}/result`);
    if (!answer.ok) continue;
    const name = decodeURIComponent(/filename\*=UTF-8''(.+)$/.exec(answer.headers.get("content-disposition"))[1]);
    const file = await folder.getFileHandle(await free(folder, name), { create: true });
    const stream = await file.createWritable();
    await stream.write(await answer.blob());
    await stream.close();
    count += 1;
  }
  note(say("saved", { n: count }));
}

async function free(folder, name) {
  const dot = name.lastIndexOf(".");
  for (let number = 1; ; number += 1) {
    const tried = number === 1 ? name : `${name.slice(0, dot)}-${number}${name.slice(dot)}`;
    try {
      await folder.getFileHandle(tried);
    } catch (error) {
      if (error.name === "NotFoundError") return tried;
    }
  }
}
