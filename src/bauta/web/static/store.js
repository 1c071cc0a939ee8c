// What the server knows, kept up to date by asking it for what changed.

export const store = { photos: new Map(), order: [], album: null, version: 0, selected: null };

const listeners = [];
export const listen = (heard) => listeners.push(heard);
export const tell = (changed = new Set()) => listeners.forEach((heard) => heard(changed));

export const selected = () => store.photos.get(store.selected) ?? null;
export const photos = () => store.order.map((id) => store.photos.get(id)).filter(Boolean);

/** Whether a stronger mask could help, and whether a face could be blurred that is recognised or bare. */
export const retryable = (photo) => ["weak", "fragile"].includes(photo.result.verdict) && (photo.strength ?? store.album.wishes.strength) !== "high";
export const coverable = (photo) => photo.result.faces.some((face) => face.treatment === "none" || (face.treatment === "mask" && ["weak", "fragile"].includes(face.verdict)));

export function select(id) {
  if (store.selected === id) return;
  store.selected = id;
  tell(new Set([id]));
}

/** Asks for news for ever; `lost` hears whether the server answers. */
export async function follow(lost) {
  let missed = 0;
  for (;;) {
    try {
      const answer = await fetch(`state?since=${store.version}`);
      if (!answer.ok) throw new Error(String(answer.status));
      take(await answer.json());
      if (missed) lost(false);
      missed = 0;
    } catch {
      missed += 1;
      if (missed > 1) lost(true);
      await new Promise((resolve) => setTimeout(resolve, Math.min(5000, 400 * missed)));
    }
  }
}

function take(news) {
  store.album = news.album;
  store.order = news.order;
  for (const photo of news.photos) store.photos.set(photo.id, photo);
  for (const id of store.photos.keys()) if (!news.order.includes(id)) store.photos.delete(id);
  if (!store.photos.has(store.selected)) store.selected = store.order[0] ?? null;
  tell(new Set(news.photos.map((photo) => photo.id)));
  store.version = news.version; // last, so that news which could not be shown is asked for again
}
