"use strict";
/** A histogram of a column with a brush: drag over it, or give the ends as numbers. `changed` is called with [least, most] or null. */
class Histogram {
  static BINS = 40;

  constructor(spec, table, changed) {
    this.spec = spec;
    this.table = table;
    this.changed = changed;
    this.brush = null;
    this.element = document.createElement("fieldset");
    this.element.className = "histogram";
    this.element.dataset.column = spec.column;
    const legend = document.createElement("legend");
    legend.textContent = spec.unit ? `${spec.name}, ${spec.unit}` : spec.name;
    if (spec.words) legend.title = spec.words;
    this.svg = Histogram.node("svg", { viewBox: `0 0 ${Histogram.BINS} 1`, preserveAspectRatio: "none", "aria-hidden": "true" });
    this.all = Histogram.node("path", { class: "all" });
    this.some = Histogram.node("path", { class: "some" });
    this.cover = Histogram.node("rect", { class: "brush", y: 0, height: 1, width: 0 });
    this.svg.append(this.all, this.some, this.cover);
    this.least = this.input("least");
    this.most = this.input("most");
    const ends = document.createElement("div");
    ends.append(this.least, this.most);
    this.element.append(legend, this.svg, ends);
    this.drag();
  }

  static node(name, attributes) {
    const node = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    return node;
  }

  input(which) {
    const input = document.createElement("input");
    Object.assign(input, { type: "number", step: "any" });
    input.setAttribute("aria-label", `${which} ${this.spec.name}`);
    input.addEventListener("input", () => this.typed());
    return input;
  }

  typed() {
    const least = this.least.value === "" ? -Infinity : Number(this.least.value);
    const most = this.most.value === "" ? Infinity : Number(this.most.value);
    this.set(least === -Infinity && most === Infinity ? null : [least, most], false);
  }

  drag() {
    let from = null;
    const value = (event) => {
      const box = this.svg.getBoundingClientRect(), [least, most] = this.table.ranges[this.spec.column];
      return least + Math.max(0, Math.min(1, (event.clientX - box.left) / box.width)) * (most - least);
    };
    this.svg.addEventListener("pointerdown", (event) => {
      from = value(event);
      this.svg.setPointerCapture(event.pointerId);
    });
    this.svg.addEventListener("pointermove", (event) => {
      if (from === null) return;
      const to = value(event);
      if (from !== to) this.set([Math.min(from, to), Math.max(from, to)]);
    });
    this.svg.addEventListener("pointerup", (event) => {
      // a click without a way takes the brush away
      if (from !== null && value(event) === from) this.set(null);
      from = null;
    });
    this.svg.addEventListener("pointercancel", () => (from = null));
  }

  /** `tells`: whether the fields get the ends as well. */
  set(brush, tells = true) {
    this.brush = brush;
    if (tells) {
      this.least.value = brush ? this.rounded(brush[0]) : "";
      this.most.value = brush ? this.rounded(brush[1]) : "";
    }
    this.place();
    this.changed(brush);
  }

  rounded(value) {
    return String(Number(value.toFixed(this.spec.digits + 2)));
  }

  place() {
    const [least, most] = this.table.ranges[this.spec.column], span = most - least || 1;
    const share = (value) => Math.max(0, Math.min(1, (value - least) / span)) * Histogram.BINS;
    const [from, to] = this.brush ? this.brush.map(share) : [0, 0];
    this.cover.setAttribute("x", from);
    this.cover.setAttribute("width", Math.max(0, to - from));
  }

  /** Draws all rows, and those that are chosen in front. */
  draw(rows) {
    const all = this.table.counts(this.spec.column, Histogram.BINS, null);
    const some = this.table.counts(this.spec.column, Histogram.BINS, rows);
    const highest = Math.max(1, ...all);
    const path = (counts) => {
      let text = "";
      // roots: a bar of few samples beside one of many is still to be seen
      counts.forEach((count, bin) => { if (count) text += `M${bin + 0.05} 1V${1 - Math.sqrt(count / highest) * 0.96}h.9V1z`; });
      return text;
    };
    this.all.setAttribute("d", path(all));
    this.some.setAttribute("d", path(some));
    const [least, most] = this.table.ranges[this.spec.column];
    this.least.placeholder = this.rounded(least);
    this.most.placeholder = this.rounded(most);
    this.place();
  }
}
