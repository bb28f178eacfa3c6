"use strict";
/** Samples of a server: `stylebatch view`. */
class Served {
  changes = true;
  takesConditions = true;

  async get(path, query = {}, options = {}) {
    const answer = await fetch(`${path}?${new URLSearchParams(query)}`, options);
    if (!answer.ok) throw new Error((await answer.json().catch(() => ({}))).error || `${answer.status} ${answer.statusText}`);
    return answer;
  }

  async state() {
    const state = await (await this.get("/api/state")).json();
    this.version = state.version;
    return state;
  }

  async chunk(number, table) {
    const data = await (await this.get("/api/columns", { chunk: number })).arrayBuffer();
    const length = new DataView(data).getUint32(0, true);
    const { count, names } = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, length)));
    const kinds = [...table.numbers.map(() => Float32Array), ...table.categories.map(() => Uint32Array)];
    const arrays = kinds.map((kind, place) => new kind(data, 4 + length + 4 * place * count, count));
    return { count, names, arrays };
  }

  async rows(rows) {
    return (await (await this.get("/api/rows", { at: rows.join() })).json()).rows;
  }

  async sample(row) {
    return (await this.get("/api/sample", { row })).json();
  }

  async search(query) {
    const answer = await this.get("/api/search", query);
    return { bits: new Uint8Array(await answer.arrayBuffer()), rows: Number(answer.headers.get("X-Rows")) };
  }

  picture(row, kind, side) {
    return `/picture?${new URLSearchParams({ row, kind, side, version: this.version })}`;
  }

  async marked() {
    return (await this.get("/api/marks")).json();
  }

  async mark(rows, marked) {
    const body = JSON.stringify({ rows, marked });
    return (await this.get("/api/marks", {}, { method: "POST", headers: { "Content-Type": "application/json" }, body })).json();
  }
}

const page = new Page(new Served());
page.start();
