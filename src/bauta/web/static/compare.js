// Before and after of one photo: by slider, by blinking, at 100 and 200 % of a face.

import { h, say, write } from "./dom.js";

const BLINK = 900; // milliseconds

export class Compare {
  constructor() {
    this.photo = null;
    this.what = "1";
    this.zoom = "1";
    this.cut = 50;
    this.blinking = false;
    this.source = "";
    this.what_ = h("div");
    this.zoom_ = this.segments("zoom", [["1", "100 %"], ["2", "200 %"]], this.zoom, say("compare.zoom"), (value) => {
      this.zoom = value;
      this.size();
    });
    this.blink_ = h("button", { className: "small", type: "button", title: say("compare.blink.help"), onclick: () => this.blink(!this.blinking) }, say("compare.blink"));
    this.blink_.setAttribute("aria-pressed", "false");
    this.under = h("img", { alt: "", draggable: false });
    this.over = h("img", { alt: "", draggable: false, className: "over" });
    this.slider = h("input", { type: "range", min: 0, max: 100, value: 50, step: 1 });
    this.slider.setAttribute("aria-label", say("compare.slider"));
    this.slider.addEventListener("input", () => this.slide(Number(this.slider.value)));
    this.one = h("span", { className: "tag one" }, say("before"));
    this.two = h("span", { className: "tag two" }, say("after"));
    this.pair = h("div", { className: "pair" }, this.under, this.over, this.slider);
    this.glass = h("div", { className: "glass" }, this.pair);
    this.frame = h("div", { className: "frame", hidden: true }, this.glass, this.one, this.two);
    this.empty = h("p", { className: "placeholder" }, say("compare.none"));
    this.badge = h("span", { className: "badge" });
    this.help = h("p", { className: "soft" });
    this.element = h(
      "section",
      { className: "compare" },
      h("div", { className: "row" }, h("h3", {}, say("compare")), this.badge),
      h("div", { className: "bar" }, this.what_, this.zoom_, this.blink_),
      this.empty,
      this.frame,
      this.help,
    );
    this.under.addEventListener("load", () => this.size());
    this.slide(50);
  }

  segments(name, options, chosen, label, changed) {
    const group = h("div", { className: "segments", role: "group" });
    group.setAttribute("aria-label", label);
    for (const [value, text] of options) {
      const input = h("input", { type: "radio", name: `compare-${name}`, value, checked: value === chosen, onchange: () => changed(value) });
      group.append(h("label", {}, input, text));
    }
    return group;
  }

  /** Where there are many faces. */
  menu(options) {
    const menu = h("select", { className: "small", onchange: () => this.look(menu.value) }, ...options.map(([value, text]) => h("option", { value, selected: value === this.what }, text)));
    menu.setAttribute("aria-label", say("compare.what"));
    return menu;
  }

  /** Shows a photo as it now is. */
  update(photo) {
    if (this.photo?.id !== photo.id || this.photo.faces.length !== photo.faces.length) {
      const faces = photo.faces.slice(0, 40);
      this.what = String((faces.find((face) => face.choice === "protect") ?? faces[0])?.number ?? "whole");
      const options = [...faces.map((face) => [String(face.number), say("face", { n: face.number })]), ["whole", say("compare.whole")]];
      const made = faces.length > 3 ? this.menu(options) : this.segments("what", options, this.what, say("compare.what"), (value) => this.look(value));
      this.what_.replaceWith(made);
      this.what_ = made;
      this.blink(false);
    }
    this.photo = photo;
    const done = photo.state === "done" && photo.result;
    this.source = done ? "after" : photo.sketched ? "sketch" : "";
    this.badge.hidden = !this.source && !photo.sketching;
    this.badge.classList.toggle("done", Boolean(done));
    write(this.badge, photo.sketching && !done ? say("compare.drawing") : done ? say("compare.after") : say("compare.sketch"));
    write(this.empty, photo.sketching ? say("compare.drawing") : say("compare.none"));
    this.empty.hidden = Boolean(this.source);
    this.frame.hidden = !this.source;
    this.blink_.disabled = !this.source;
    this.show();
  }

  look(what) {
    this.what = what;
    for (const input of this.what_.querySelectorAll("input")) input.checked = input.value === what;
    if (this.what_.tagName === "SELECT") this.what_.value = what;
    this.show();
  }

  show() {
    const { photo, source } = this;
    if (!source) return write(this.help, "");
    const whole = this.what === "whole";
    const stamp = source === "sketch" ? photo.sketched : photo.result.stamp;
    const before = whole ? `photos/${photo.id}/shown.jpg` : `photos/${photo.id}/before-${this.what}.png`;
    const after = whole ? `photos/${photo.id}/${source}.jpg?${stamp}` : `photos/${photo.id}/${source}-${this.what}.png?${stamp}`;
    if (this.under.getAttribute("src") !== before) this.under.src = before;
    if (this.over.getAttribute("src") !== after) this.over.src = after;
    const name = whole ? photo.name : say("face", { n: this.what });
    this.under.alt = `${name}: ${say("before")}`;
    this.over.alt = `${name}: ${say("after")}`;
    this.pair.classList.toggle("fit", whole);
    this.zoom_.hidden = whole;
    const seen = whole ? photo.result?.seen : photo.result?.faces.find((face) => String(face.number) === this.what)?.seen;
    const said = [source === "sketch" ? say("compare.sketch.help") : seen ? say(`seen.${seen}`) : "", say(whole ? "compare.fit" : "compare.exact")];
    write(this.help, said.filter(Boolean).join(" "));
    this.size();
  }

  /** At 100 % one pixel of the photo is one of the screen, however dense that is. */
  size() {
    const exact = this.what !== "whole";
    const width = exact ? `${(this.under.naturalWidth / devicePixelRatio) * Number(this.zoom)}px` : "";
    for (const image of [this.under, this.over]) image.style.width = width;
    const scrolls = exact && this.glass.scrollWidth > this.glass.clientWidth + 1;
    if (scrolls) this.glass.tabIndex = 0;
    else this.glass.removeAttribute("tabindex");
    if (scrolls) this.glass.setAttribute("role", "group"), this.glass.setAttribute("aria-label", say("compare"));
  }

  slide(cut) {
    this.cut = cut;
    this.pair.style.setProperty("--cut", `${cut}%`);
    this.over.style.clipPath = `inset(0 0 0 ${cut}%)`;
  }

  blink(on) {
    clearInterval(this.timer);
    this.blinking = on;
    this.blink_.setAttribute("aria-pressed", String(on));
    this.blink_.classList.toggle("main", on);
    this.pair.classList.toggle("blinking", on);
    this.slider.disabled = on;
    this.one.hidden = this.two.hidden = false;
    this.over.style.visibility = "visible";
    if (!on) return this.slide(Number(this.slider.value));
    let after = true;
    const turn = () => {
      after = !after;
      this.over.style.clipPath = "none";
      this.over.style.visibility = after ? "visible" : "hidden";
      this.one.hidden = after;
      this.two.hidden = !after;
    };
    turn();
    this.timer = setInterval(turn, BLINK);
  }
}
