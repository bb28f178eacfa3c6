"use strict";
/** Samples that the page holds itself: `gallery.html`. */
class Embedded {
  changes = false;
  takesConditions = false;

  constructor(held) {
    this.held = held;
    this.keys = new Set();
    this.texts = held.rows.map((row) => held.searched.map((name) => row[name] ?? "").join("\n").toLowerCase());
  }

  async state() {
    return this.held.state;
  }

  async chunk(number, table) {
    const { count, names, numbers, codes } = this.held;
    const floats = numbers.map((values) => Float32Array.from(values, (value) => value ?? NaN));
    return { count, names, arrays: [...floats, ...codes.map((values) => Uint32Array.from(values))] };
  }

  columns(row) {
    return { ...this.held.common, ...this.held.rows[row] };
  }

  async rows(rows) {
    return Object.fromEntries(rows.map((row) => [row, this.columns(row)]));
  }

  async sample(row) {
    const columns = this.columns(row), { kinds } = this.held.state;
    const pictures = kinds.map(({ name }) => name).filter((name) => this.picture(row, name));
    return { columns, pictures: this.held.results[row] ? ["result", ...pictures] : [], error: "", lineage: [...this.held.lineage[row], ...this.held.state.facts] };
  }

  async search({ text, marked }) {
    const words = (text || "").toLowerCase().split(/\s+/).filter(Boolean), bits = new Uint8Array((this.texts.length + 7) >> 3);
    this.texts.forEach((held, row) => {
      const isFound = marked ? this.keys.has(this.held.rows[row].key) : words.every((word) => held.includes(word));
      if (isFound) bits[row >> 3] |= 1 << (row & 7);
    });
    return { bits, rows: this.texts.length };
  }

  picture(row, kind) {
    if (kind === "result") return this.held.results[row];
    const { column } = this.held.state.kinds.find(({ name }) => name === kind);
    const pictures = this.held.inputs[kind], name = this.columns(row)[column];
    // a name such as `constructor` is in every object
    return pictures && Object.hasOwn(pictures, name) ? pictures[name] : undefined;
  }

  async marked() {
    return { keys: [...this.keys] };
  }

  async mark(rows, marked) {
    for (const row of rows) marked ? this.keys.add(this.held.rows[row].key) : this.keys.delete(this.held.rows[row].key);
    return { keys: [...this.keys].sort() };
  }

  /** A link to the file of marks, which a page cannot write itself. */
  offer(element, keys) {
    element.replaceChildren();
    if (!keys.length) return;
    const text = [this.held.head, ...keys, ""].join("\n"), link = document.createElement("a");
    link.download = this.held.state.marks;
    link.href = `data:text/plain;charset=utf-8,${encodeURIComponent(text)}`;
    link.textContent = `save ${keys.length.toLocaleString("en")} marked as ${link.download}`;
    element.append(link);
  }
}

const page = new Page(new Embedded(JSON.parse(document.getElementById("samples").textContent)));
page.start();
