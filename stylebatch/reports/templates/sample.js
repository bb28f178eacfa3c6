"use strict";
/** Marks an element as text of the data: of any language, and of the direction that its first letter has. */
function ofData(element) {
  return Object.assign(element, { dir: "auto", lang: "" });
}

/** Fills a list of pairs of a word and a text. */
function pairs(list, entries) {
  list.replaceChildren(
    ...entries.flatMap(([word, text]) => {
      const term = document.createElement("dt"), value = document.createElement("dd");
      term.textContent = word;
      ofData(value).textContent = text;
      return [term, value];
    }),
  );
}

/** One sample: the picture against what it was made of, its other inputs, all its columns, where it comes from. */
class SampleView {
  static ZOOMS = [0, 1, 2, 4, 8];

  constructor(page) {
    this.page = page;
    this.dialog = document.getElementById("sample");
    this.part = (id) => document.getElementById(id);
    this.zoom = 0;
    this.place = -1;
    this.turn = 0;
    this.part("share").addEventListener("input", () => this.compare());
    this.part("previous").addEventListener("click", () => this.go(-1));
    this.part("next").addEventListener("click", () => this.go(1));
    this.part("zoom").addEventListener("click", () => this.zoomOn());
    this.part("close").addEventListener("click", () => this.dialog.close());
    this.part("sample-mark").addEventListener("click", () => this.page.mark(this.row));
    this.part("after").addEventListener("load", () => this.size());
    this.dialog.addEventListener("close", () => this.closed());
    this.dialog.addEventListener("keydown", (event) => this.key(event));
    this.slide();
  }

  get isOpen() {
    return this.dialog.open;
  }

  /** Shows the sample at `place` of those that are chosen. */
  async open(place) {
    const rows = this.page.grid.rows;
    if (place < 0 || place >= rows.length) return;
    if (!this.isOpen) this.opener = this.page.grid.cursor;
    this.place = place;
    await this.show(rows[place]);
  }

  async show(row) {
    this.row = row;
    const turn = ++this.turn;
    if (!this.dialog.open) this.dialog.showModal();
    let found;
    try {
      found = await this.page.source.sample(row);
    } catch (error) {
      found = { columns: {}, pictures: [], error: error.message, lineage: [] };
    }
    // a later sample may have been asked for meanwhile
    if (turn === this.turn) this.fill(found);
  }

  fill({ columns, pictures, error, lineage }) {
    const { source, state } = this.page;
    this.columns = columns;
    const key = String(columns.key ?? `row ${this.row}`);
    this.part("sample-key").textContent = key;
    this.part("sample-fault").textContent = error || (columns.status === "success" ? "" : `${columns.error_code}: ${columns.error_message}`);
    this.part("sample-text").textContent = [columns.prompt, columns.caption].filter(Boolean).join(" · ");
    const kept = pictures.includes(state.kept) ? state.kept : "";
    const after = this.part("after"), before = this.part("before");
    this.part("shown").hidden = !pictures.length;
    if (pictures.includes("result")) {
      after.alt = this.page.title(columns);
      after.src = source.picture(this.row, "result", 0);
    } else after.removeAttribute("src");
    before.hidden = this.part("slider").hidden = !kept;
    if (kept) {
      before.alt = `${kept} ${columns[this.page.columnOf(kept)] ?? ""}`;
      before.src = source.picture(this.row, kept, 0);
    } else before.removeAttribute("src");
    this.part("beside").replaceChildren(...pictures.filter((kind) => kind !== "result").map((kind) => this.figure(kind)));
    pairs(this.part("columns"), Object.entries(columns).map(([name, value]) => [name, this.shown(name, value)]));
    pairs(this.part("lineage"), lineage);
    this.compare();
    this.marked();
  }

  shown(name, value) {
    if (value === null || value === undefined) return "none";
    const spec = this.page.state.numbers.find(({ column }) => column === name);
    if (spec && typeof value === "number") return `${value.toFixed(spec.digits)} ${spec.unit}`.trim();
    return typeof value === "object" ? JSON.stringify(value) : String(value);
  }

  figure(kind) {
    const figure = document.createElement("figure"), image = document.createElement("img"), words = document.createElement("figcaption");
    const name = String(this.columns[this.page.columnOf(kind)] ?? "");
    image.src = this.page.source.picture(this.row, kind, 512);
    image.alt = `${kind} ${name}`;
    ofData(words).textContent = name ? `${kind}: ${name}` : kind;
    figure.append(image, words);
    return figure;
  }

  /** Shows whether the sample is marked. */
  marked() {
    if (!this.dialog.open || !this.columns) return;
    const is = this.page.marks.has(this.columns.key), button = this.part("sample-mark");
    button.setAttribute("aria-pressed", is);
    button.textContent = is ? "marked" : "mark";
    button.hidden = !this.page.canMark;
  }

  go(way) {
    if (this.place >= 0) this.open(this.place + way);
  }

  compare() {
    const share = Number(this.part("share").value);
    this.part("before").style.clipPath = `inset(0 ${100 - share}% 0 0)`;
  }

  /** Drag over the picture where it is not larger than its place. */
  slide() {
    const stage = this.part("stage"), canvas = this.part("canvas");
    const to = (event) => {
      if (!(event.buttons & 1) || this.part("slider").hidden) return;
      const box = canvas.getBoundingClientRect();
      this.part("share").value = Math.max(0, Math.min(100, ((event.clientX - box.left) / box.width) * 100));
      this.compare();
    };
    stage.addEventListener("pointerdown", to);
    stage.addEventListener("pointermove", to);
    stage.addEventListener("dragstart", (event) => event.preventDefault());
  }

  zoomOn(to = (this.zoom + 1) % SampleView.ZOOMS.length) {
    this.zoom = to;
    const times = SampleView.ZOOMS[to];
    this.part("zoom").textContent = times ? `Zoom: ${times * 100} %` : "Zoom: fit";
    this.size();
  }

  size() {
    const image = this.part("after"), stage = this.part("stage"), canvas = this.part("canvas");
    const { naturalWidth: wide, naturalHeight: high } = image;
    if (!wide) return;
    const fit = Math.min(stage.clientWidth / wide, stage.clientHeight / high);
    const times = SampleView.ZOOMS[this.zoom] || fit;
    canvas.style.width = `${Math.floor(wide * times)}px`;
    canvas.style.height = `${Math.floor(high * times)}px`;
    stage.classList.toggle("large", times >= 3);
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const isRange = event.target.type === "range", isStage = event.target.id === "stage" && this.zoom;
    const keys = {
      j: () => this.go(1),
      k: () => this.go(-1),
      x: () => this.page.mark(this.row),
      z: () => this.zoomOn(),
      b: () => {
        this.part("share").value = Number(this.part("share").value) < 50 ? 100 : 0;
        this.compare();
      },
    };
    if (!isRange && !isStage) Object.assign(keys, { ArrowRight: keys.j, ArrowLeft: keys.k });
    if (!keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
  }

  closed() {
    this.turn++;
    for (const id of ["after", "before"]) this.part(id).removeAttribute("src");
    // this event comes late: somebody may have gone to another card since
    if (this.place >= 0 && this.page.grid.cursor === this.opener) this.page.grid.focus(this.place);
    this.place = -1;
  }
}
