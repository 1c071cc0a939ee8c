// Photos come in: dropped, chosen, pasted; one after the other, two at a time.

import { byId, doing, errorText, loadTexts, note, say, send, Trouble } from "./dom.js";
import { select, store } from "./store.js";

const PHOTO = /\.(jpe?g|jpe|jfif|mpo|png|webp|tiff?|heic|heif|hif|avif)$/i;

const looksLike = (file) => file.type.startsWith("image/") || PHOTO.test(file.name);

async function entriesOf(entry, found) {
  if (entry.isFile) found.push(await new Promise((resolve, reject) => entry.file(resolve, reject)));
  else if (entry.isDirectory) {
    const reader = entry.createReader();
    for (;;) {
      const part = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
      if (!part.length) return;
      for (const one of part) if (!one.name.startsWith(".")) await entriesOf(one, found);
    }
  }
}

async function dropped(transfer) {
  const found = [];
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.length) return [...transfer.files];
  for (const entry of entries) await entriesOf(entry, found);
  return found;
}

export async function take(files) {
  await loadTexts(); // photos may be dropped before
  const wanted = files.filter(looksLike);
  const passed = files.length - wanted.length;
  if (wanted.length) note(say("uploading", { n: wanted.length }));
  let done = 0;
  const problems = [];
  const waiting = [...wanted];
  const one = async () => {
    while (waiting.length) {
      const file = waiting.shift();
      try {
        const { id } = await send("photos", file);
        done += 1;
        if (!store.selected) select(id);
      } catch (error) {
        problems.push(`${file.name}: ${error instanceof Trouble ? errorText(error.about) : say("error")}`);
        if (error instanceof Trouble && ["too-many", "album-full", "disk"].includes(error.about.code)) waiting.length = 0;
      }
    }
  };
  await Promise.all([one(), one()]);
  const said = [];
  if (done) said.push(say("added", { n: done }));
  if (passed) said.push(say("passed", { n: passed }));
  note([...said, ...problems.slice(0, 3)].join(" "));
}

export function setUpTaking() {
  for (const button of document.querySelectorAll(".pick-files")) button.addEventListener("click", () => byId("files").click());
  for (const button of document.querySelectorAll(".pick-folder")) button.addEventListener("click", () => byId("folder").click());
  for (const input of [byId("files"), byId("folder")]) {
    input.addEventListener("change", doing(async () => {
      const files = [...input.files];
      input.value = "";
      await take(files);
    }));
  }
  let depth = 0;
  const carriesFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  addEventListener("dragenter", (event) => {
    if (!carriesFiles(event)) return;
    depth += 1;
    byId("veil").hidden = false;
  });
  addEventListener("dragleave", () => {
    depth = Math.max(0, depth - 1);
    if (!depth) byId("veil").hidden = true;
  });
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    event.preventDefault();
    depth = 0;
    byId("veil").hidden = true;
    const transfer = event.dataTransfer;
    if (transfer) doing(async () => take(await dropped(transfer)))();
  });
  addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (!files.length) return;
    event.preventDefault();
    doing(() => take(files))();
  });
}
