"use strict";
/** Columns of samples as typed arrays: what the page filters, sorts and counts without asking anybody. */
class Table {
  static PLACES = 2 ** 21;

  constructor(numbers, categories) {
    this.numbers = numbers;
    this.categories = categories;
    this.length = 0;
    this.capacity = 0;
    this.values = {};
    this.names = {};
    this.ranges = {};
    for (const { column } of numbers) {
      this.values[column] = new Float32Array(0);
      this.ranges[column] = [Infinity, -Infinity];
    }
    for (const { column } of categories) {
      this.values[column] = new Uint32Array(0);
      this.names[column] = [];
    }
  }

  /** Adds rows: `names` that are new by column, and `arrays` of numbers, then categories. */
  append({ count, names, arrays }) {
    this.reserve(this.length + count);
    for (const [column, found] of Object.entries(names)) for (const name of found) this.names[column].push(name);
    [...this.numbers, ...this.categories].forEach(({ column }, place) => this.values[column].set(arrays[place], this.length));
    for (const { column } of this.numbers) {
      const values = this.values[column], range = this.ranges[column];
      for (let row = this.length; row < this.length + count; row++) {
        if (values[row] < range[0]) range[0] = values[row];
        if (values[row] > range[1]) range[1] = values[row];
      }
    }
    this.length += count;
  }

  reserve(length) {
    if (length <= this.capacity) return;
    this.capacity = Math.max(length, this.capacity * 2, 16384);
    for (const [column, values] of Object.entries(this.values)) {
      const larger = new values.constructor(this.capacity);
      larger.set(values.subarray(0, this.length));
      this.values[column] = larger;
    }
  }

  code(column, name) {
    return this.names[column] ? this.names[column].indexOf(name) : -1;
  }

  name(column, row) {
    const names = this.names[column];
    return names ? names[this.values[column][row]] : "";
  }

  /** Whether the values of a column differ at all. */
  varies(column) {
    return this.names[column] ? this.names[column].length > 1 : this.ranges[column][0] < this.ranges[column][1];
  }

  /**
   * Numbers of the rows that stay, in order. `brushes`: [least, most] by column; `codes`: number of a name by column;
   * `masks`: of bits, one a row, and rows beyond a mask do not stay.
   */
  select({ brushes = {}, codes = {}, masks = [] }) {
    const length = this.length, keep = new Uint8Array(length).fill(1);
    for (const [column, ends] of Object.entries(brushes)) {
      // numbers are float32 here: an end that is typed as the card shows a value is meant to include it
      const values = this.values[column], [least, most] = ends.map(Math.fround);
      for (let row = 0; row < length; row++) if (!(values[row] >= least && values[row] <= most)) keep[row] = 0;
    }
    for (const [column, code] of Object.entries(codes)) {
      const values = this.values[column];
      for (let row = 0; row < length; row++) if (values[row] !== code) keep[row] = 0;
    }
    for (const bits of masks) for (let row = 0; row < length; row++) if (!((bits[row >> 3] >> (row & 7)) & 1)) keep[row] = 0;
    let count = 0;
    for (let row = 0; row < length; row++) count += keep[row];
    const rows = new Uint32Array(count);
    for (let row = 0, place = 0; row < length; row++) if (keep[row]) rows[place++] = row;
    return rows;
  }

  /** The rows by a column, names by the alphabet; rows without a number come last. Equal ones keep their order. */
  sorted(rows, column, sign) {
    const values = this.values[column];
    if (!values) return rows;
    let ranks = null;
    if (this.names[column]) {
      const order = this.names[column].map((name, code) => [name, code]).sort((a, b) => (a[0] < b[0] ? -1 : a[0] > b[0]));
      ranks = new Float64Array(order.length);
      order.forEach(([, code], rank) => (ranks[code] = rank));
    }
    // a number and its place in one float64, of 32 and 21 bits: sorted without a function, ten times as fast
    const bits = new Float32Array(1), whole = new Uint32Array(bits.buffer), keys = new Float64Array(rows.length);
    for (let place = 0; place < rows.length; place++) {
      const value = ranks ? ranks[values[rows[place]]] : values[rows[place]];
      // + 0: -0 is 0
      bits[0] = Number.isNaN(value) ? Infinity : sign * value + 0;
      // bits of floats in the order of their values
      const ordered = (whole[0] & 0x80000000 ? ~whole[0] : whole[0] | 0x80000000) >>> 0;
      keys[place] = ordered * Table.PLACES + (place % Table.PLACES);
    }
    if (rows.length <= Table.PLACES) return Uint32Array.from(keys.sort(), (key) => rows[key % Table.PLACES]);
    const places = Uint32Array.from(keys.keys());
    places.sort((a, b) => Math.floor(keys[a] / Table.PLACES) - Math.floor(keys[b] / Table.PLACES) || a - b);
    return places.map((place) => rows[place]);
  }

  /** How many of `rows`, null for all, have a number in each of `count` equal parts of its range. */
  counts(column, count, rows) {
    const found = new Uint32Array(count), values = this.values[column], [least, most] = this.ranges[column];
    const scale = count / (most - least || 1), number = rows ? rows.length : this.length;
    for (let place = 0; place < number; place++) {
      const value = values[rows ? rows[place] : place];
      if (!Number.isNaN(value)) found[Math.min(count - 1, Math.floor((value - least) * scale))]++;
    }
    return found;
  }
}
