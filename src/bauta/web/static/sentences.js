// Findings in plain words. Findings are data; only their wording is here and in the texts.

import { knows, list, listed, number, say } from "./dom.js";

const QUIET = new Set(["face-left-alone"]);

/** Sentences on one face, or on the photo where `face` is null; the reasons of the verdict come first. */
export function sentences(result, face) {
  const own = result.findings.filter((finding) => (finding.face ?? null) === face && !QUIET.has(finding.kind));
  const order = ["weak", "partial", "fragile", "unconfirmed", "protected"];
  own.sort((a, b) => order.indexOf(a.forces) - order.indexOf(b.forces));
  const said = own.map(sentence);
  return [...new Set(said)];
}

function sentence(finding) {
  return say(`finding.${finding.kind}`, {
    judge: finding.judge,
    cosine: number(finding.cosine ?? 0),
    limit: number(finding.limit ?? 0),
    condition: say(`condition.${finding.condition}`),
    reason: say(`reason.${finding.reason}`),
    cause: say(`cause.${finding.cause}`),
  });
}

export function plain(result) {
  return say(`plain.${result.verdict}`, { n: result.independent });
}

export function removed(result) {
  return Object.entries(result.removed).map(([kind, n]) => (knows(`removed.${kind}`) ? say(`removed.${kind}`, { n }) : `${n} ${kind}`));
}

/** What was measured on a photo: that it holds, and that it does not. */
export function measured(result) {
  const held = result.conditions.filter((condition) => !condition.matched.length).map((condition) => say(`condition.${condition.name}`));
  const said = [];
  if (held.length && result.judges.length) said.push({ text: say("threats.held", { judges: listed(result.judges), conditions: listed(held, "disjunction") }), held: true });
  for (const { name, matched } of result.conditions) {
    if (matched.length) said.push({ text: say("threats.undone", { judge: listed(matched), condition: say(`condition.${name}`) }), held: false });
  }
  return said;
}

export const never = (result) => [...list("threats.list"), ...(result ? [say("threats.small", { n: Math.round(result.smallest) })] : [])];
