"use strict";
/**
 * The page of an output. `source` says where its samples are: of a server (`served.js`) or in the page itself (`embedded.js`).
 *
 * Columns of all samples are here as numbers, so that filters ask nobody; texts and pictures come for the cards in sight.
 */
class Page {
  static DETAILS = 4000;
  static MANY = 300;

  constructor(source) {
    this.source = source;
    this.part = (id) => document.getElementById(id);
    this.marks = new Set();
    this.details = new Map();
    this.masks = {};
    this.version = null;
    this.grid = new Grid(this.part("grid"), this.part("card"), {
      card: (article, row) => this.fill(article, row),
      ended: (article) => this.empty(article),
    });
    this.view = new SampleView(this);
    this.listen();
  }

  get canMark() {
    return Boolean(this.state.marks);
  }

  listen() {
    const controls = this.part("controls");
    controls.addEventListener("submit", (event) => event.preventDefault());
    this.part("sort").addEventListener("input", () => this.apply());
    this.part("text").addEventListener("input", () => this.later(() => this.find("text", { text: this.part("text").value.trim() })));
    this.part("where").addEventListener("change", () => this.find("where", { where: this.part("where").value.trim() }));
    this.part("only-marked").addEventListener("change", () => this.find("marked", this.part("only-marked").checked ? { marked: "1" } : {}));
    this.part("clear").addEventListener("click", () => this.clear());
    this.part("grid").addEventListener("click", (event) => this.clicked(event));
    this.part("grid").addEventListener("focusin", (event) => {
      const article = event.target.closest("article");
      if (article) this.grid.cursor = article.place;
    });
    // a picture that cannot be read; such events do not bubble
    this.part("grid").addEventListener("error", (event) => this.unread(event.target.closest("article")), true);
    addEventListener("keydown", (event) => this.key(event));
    if (innerWidth <= 720) this.part("panel").open = false;
  }

  async start() {
    for (const element of document.querySelectorAll(".served")) element.hidden = !this.source.takesConditions;
    await this.look();
    this.inTurn(() => this.source.marked());
  }

  /** Asks about marks one after another: each answer is all that is marked then. */
  inTurn(ask) {
    this.turn = (this.turn ?? Promise.resolve()).then(ask).then(({ keys }) => this.setMarks(keys)).catch((error) => this.notice([error.message]));
    return this.turn;
  }

  /** Asks how far the output is, reads what is new, and asks again in a while. */
  async look() {
    if (this.isLooking) return;
    this.isLooking = true;
    clearTimeout(this.again);
    let pause = 15000;
    try {
      const state = await this.source.state();
      this.state = state;
      if (state.version !== this.version) this.begin(state);
      this.tell(state);
      await this.read(state);
      if (state.is_loading || state.live) pause = state.is_loading ? 300 : 2000;
      this.part("grid").setAttribute("aria-busy", String(state.is_loading));
    } catch (error) {
      this.notice([`The viewer does not answer: ${error.message}`]);
    }
    this.isLooking = false;
    if (this.source.changes) this.again = setTimeout(() => this.look(), document.hidden ? 15000 : pause);
  }

  begin(state) {
    if (!state.numbers) return;
    const isFirst = this.version === null;
    this.version = state.version;
    this.table = new Table(state.numbers, state.categories);
    this.chunks = 0;
    this.details.clear();
    this.grid.show(new Uint32Array(0));
    this.histograms = new Map();
    this.selects = new Map();
    this.part("histograms").replaceChildren();
    this.part("categories").replaceChildren();
    if (isFirst) this.sorts(state);
    // bits were those of other rows
    for (const [kind, { query }] of Object.entries(this.masks)) this.find(kind, query);
  }

  sorts(state) {
    const sort = this.part("sort");
    const add = (value, text) => sort.append(Object.assign(document.createElement("option"), { value, textContent: text }));
    add("", "as rendered");
    for (const { column, name } of state.numbers) {
      add(`${column} -1`, `${name}, high first`);
      add(`${column} 1`, `${name}, low first`);
    }
    for (const { column, name } of state.categories) add(`${column} 1`, name);
  }

  async read(state) {
    while (this.table && this.chunks < state.num_chunks) {
      this.table.append(await this.source.chunk(this.chunks, this.table));
      this.chunks++;
      if (this.chunks === 1 || this.chunks === state.num_chunks) this.changed();
    }
    if (!this.table) this.counted(new Uint32Array(0));
  }

  /** Rows were added: what depends on them is drawn anew. */
  changed() {
    for (const spec of this.table.numbers) {
      if (this.histograms.has(spec.column) || !this.table.varies(spec.column)) continue;
      const histogram = new Histogram(spec, this.table, () => this.later(() => this.apply(), 0));
      this.histograms.set(spec.column, histogram);
      this.part("histograms").append(histogram.element);
    }
    for (const spec of this.table.categories) if (this.table.varies(spec.column)) this.category(spec);
    const outdated = Object.entries(this.masks).filter(([, mask]) => mask.rows < this.table.length);
    for (const [kind, { query }] of outdated) this.find(kind, query);
    this.apply();
  }

  /** A choice among the names of a column: a list, or of many a field with suggestions. */
  category({ column, name }) {
    let control = this.selects.get(column);
    const names = this.table.names[column];
    if (!control || (names.length > Page.MANY && control.tagName === "SELECT")) {
      const label = document.createElement("label"), former = control;
      label.append(name[0].toUpperCase() + name.slice(1));
      control = document.createElement(names.length > Page.MANY ? "input" : "select");
      control.dataset.column = column;
      label.append(control);
      if (names.length > Page.MANY) this.suggest(control, label, column);
      control.addEventListener("input", () => this.apply());
      if (former) {
        control.value = former.value === "" ? "" : names[former.value];
        former.parentElement.replaceWith(label);
      } else this.part("categories").append(label);
      this.selects.set(column, control);
    }
    if (control.tagName === "SELECT" && control.options.length !== names.length + 1) {
      const value = control.value;
      const order = names.map((text, code) => [text, code]).sort(([a], [b]) => (a < b ? -1 : a > b));
      const options = order.map(([text, value]) => Object.assign(ofData(document.createElement("option")), { value, textContent: text || "none" }));
      control.replaceChildren(Object.assign(document.createElement("option"), { value: "", textContent: "all" }), ...options);
      control.value = value;
    }
  }

  suggest(control, label, column) {
    const list = document.createElement("datalist");
    list.id = `names-${column}`;
    control.setAttribute("list", list.id);
    control.placeholder = `one of ${this.table.names[column].length.toLocaleString("en")}`;
    const fill = () => {
      const text = control.value.toLowerCase(), found = [];
      for (const name of this.table.names[column]) {
        if (name.toLowerCase().includes(text)) found.push(name);
        if (found.length === 40) break;
      }
      list.replaceChildren(...found.map((value) => Object.assign(document.createElement("option"), { value })));
    };
    control.addEventListener("focus", fill);
    control.addEventListener("input", fill);
    label.append(list);
  }

  /** Code of the name that a control says, null for none; -1 keeps no row. */
  code(control) {
    const { column } = control.dataset;
    if (control.value === "") return null;
    if (control.tagName === "SELECT") return Number(control.value);
    return this.table.code(column, control.value);
  }

  later(action, wait = 150) {
    clearTimeout(this.timer);
    this.timer = setTimeout(action, wait);
  }

  /** Gets the bits of the rows that a query finds; an empty one takes the former's away. */
  async find(kind, query) {
    const isEmpty = !Object.values(query).some(Boolean);
    if (kind === "where") this.part("where-fault").textContent = "";
    const mask = { query, bits: null, rows: 0 };
    if (isEmpty) delete this.masks[kind];
    else {
      this.masks[kind] = mask;
      try {
        Object.assign(mask, await this.source.search(query));
      } catch (error) {
        if (this.masks[kind] === mask) delete this.masks[kind];
        if (kind === "where") this.part("where-fault").textContent = error.message;
        else this.notice([error.message]);
      }
    }
    if (isEmpty || this.masks[kind] === mask || !this.masks[kind]) this.apply();
  }

  apply() {
    if (!this.table) return;
    const started = performance.now();
    const brushes = {}, codes = {};
    for (const [column, { brush }] of this.histograms) if (brush) brushes[column] = brush;
    for (const [column, control] of this.selects) {
      const code = this.code(control);
      // half a name that is being typed is no filter yet
      if (code !== null && !(code < 0 && control === document.activeElement)) codes[column] = code;
    }
    const masks = Object.values(this.masks).filter(({ bits }) => bits).map(({ bits }) => bits);
    const rows = this.table.select({ brushes, codes, masks });
    const [column, sign] = this.part("sort").value.split(" ");
    this.grid.show(column ? this.table.sorted(rows, column, Number(sign)) : rows);
    for (const article of this.grid.mounted.values()) this.words(article, this.details.get(article.row));
    for (const histogram of this.histograms.values()) histogram.draw(rows);
    this.counted(rows);
    this.took = performance.now() - started;
  }

  counted(rows) {
    const all = this.table ? this.table.length : 0, number = (count) => count.toLocaleString("en");
    const words = rows.length === all ? `${number(all)} samples` : `${number(rows.length)} of ${number(all)} samples`;
    const isEmpty = !all && !this.state.is_loading;
    this.part("count").textContent = isEmpty ? "No sample is committed yet" : `${words}${this.state.is_loading ? ", reading" : ""}`;
  }

  clear() {
    this.part("controls").reset();
    this.masks = {};
    this.part("where-fault").textContent = "";
    for (const histogram of this.histograms ? this.histograms.values() : []) histogram.set(null);
    this.apply();
  }

  tell(state) {
    this.part("summary").textContent = state.summary.join(" · ");
    this.notice([...(state.trouble ? [state.trouble] : []), ...state.problems, ...(state.unmarked ? [`Samples cannot be marked: ${state.unmarked}`] : [])]);
    pairs(this.part("facts").querySelector("dl"), state.facts);
    this.part("live").hidden = !state.live;
    this.part("activity").textContent = state.activity;
    Object.assign(this.part("progress"), { max: Math.max(1, state.num_planned), value: state.num_rows });
    if (state.live) this.newest(state.newest);
    this.reasons(state.reasons);
  }

  newest(rows) {
    if (String(rows) === this.shownNewest) return;
    this.shownNewest = String(rows);
    this.part("newest").replaceChildren(
      ...rows.map((row) => {
        const button = document.createElement("button"), image = document.createElement("img");
        button.type = "button";
        image.alt = `sample ${row + 1}`;
        image.src = this.source.picture(row, "result", 128);
        button.append(image);
        button.addEventListener("click", () => this.view.show(row));
        return button;
      }),
    );
  }

  reasons(reasons) {
    const text = JSON.stringify(reasons);
    if (text === this.shownReasons) return;
    this.shownReasons = text;
    this.part("reasons").hidden = !reasons.length;
    this.part("reasons").querySelector("ul").replaceChildren(
      ...reasons.map(({ code, count, example }) => {
        const item = document.createElement("li"), button = document.createElement("button"), words = document.createElement("span");
        button.type = "button";
        button.textContent = `${code || "none"} (${count.toLocaleString("en")})`;
        button.addEventListener("click", () => this.choose("error_code", code));
        ofData(words).textContent = example;
        item.append(button, words);
        return item;
      }),
    );
  }

  choose(column, name) {
    const control = this.selects.get(column);
    if (!control) return;
    control.value = control.tagName === "SELECT" ? this.table.code(column, name) : name;
    this.apply();
  }

  notice(texts) {
    const text = JSON.stringify(texts);
    if (text === this.shownNotices) return;
    this.shownNotices = text;
    this.part("notices").replaceChildren(
      ...texts.slice(0, 5).map((words) => Object.assign(ofData(document.createElement("p")), { textContent: words })),
      ...(texts.length > 5 ? [Object.assign(document.createElement("p"), { textContent: `and ${texts.length - 5} more` })] : []),
    );
  }

  columnOf(kind) {
    return (this.state.kinds.find(({ name }) => name === kind) || {}).column;
  }

  title(columns) {
    const names = this.state.kinds.map(({ column }) => columns[column]).filter(Boolean);
    return [columns.prompt, names.join(" × ")].filter(Boolean).join(": ") || String(columns.key);
  }

  fill(article, row) {
    const image = article.querySelector("img"), hasPicture = this.state.with_pictures.includes(this.table.name("status", row));
    image.hidden = !hasPicture;
    const columns = this.details.get(row);
    article.querySelector(".reason").textContent = "";
    article.querySelector(".open").setAttribute("aria-label", `sample ${row + 1}`);
    this.words(article, columns);
    // what passes by while one scrolls fast is never asked for
    article.timer = setTimeout(() => {
      if (hasPicture) image.src = this.source.picture(row, "result", 256);
      if (!columns) this.want(row);
    }, this.source.changes ? 60 : 0);
  }

  /** What the samples are sorted by, where it is a number. */
  sortedValue(row) {
    const [column] = this.part("sort").value.split(" "), spec = this.table.numbers.find((one) => one.column === column);
    const value = spec ? this.table.values[column][row] : NaN;
    return Number.isNaN(value) ? "" : value.toFixed(spec.digits);
  }

  words(article, columns) {
    const isMarked = Boolean(columns) && this.marks.has(columns.key), mark = article.querySelector(".mark");
    const text = (name, value) => (article.querySelector(name).textContent = value);
    const hasPicture = !article.querySelector("img").hidden, isSuccess = !columns || columns.status === "success";
    const why = isSuccess ? "" : `${columns.error_code}: ${columns.error_message}`;
    const title = columns ? [hasPicture ? why : "", this.title(columns)].filter(Boolean).join(" · ") : "";
    text(".title", title);
    text(".number", columns ? [columns.key, this.sortedValue(article.row), columns.label].filter(Boolean).join(" · ") : "");
    if (!hasPicture && why) text(".reason", why.slice(0, 400));
    article.querySelector(".title").title = title;
    if (columns) article.querySelector(".open").setAttribute("aria-label", `${columns.key} ${title}${columns.status === "success" ? "" : `, ${columns.status}`}`);
    article.classList.toggle("marked", isMarked);
    mark.setAttribute("aria-pressed", isMarked);
    mark.setAttribute("aria-label", `mark ${columns ? columns.key : ""}`);
    mark.textContent = isMarked ? "marked" : "mark";
    mark.hidden = !this.canMark || !columns;
  }

  unread(article) {
    article.querySelector("img").hidden = true;
    article.querySelector(".reason").textContent = "the picture cannot be read";
  }

  empty(article) {
    clearTimeout(article.timer);
    // ends a picture that is under way
    article.querySelector("img").removeAttribute("src");
  }

  /** Texts of cards are asked for together, and no more once their cards are gone. */
  want(row) {
    this.wanted = (this.wanted || new Set()).add(row);
    this.asking ||= setTimeout(() => this.ask(), 20);
  }

  async ask() {
    const present = new Set([...this.grid.mounted.values()].map((article) => article.row));
    const rows = [...this.wanted].filter((row) => present.has(row)).slice(0, 200), version = this.version;
    this.wanted = new Set();
    this.asking = null;
    if (!rows.length) return;
    try {
      const found = await this.source.rows(rows);
      if (version !== this.version) return;
      for (const [row, columns] of Object.entries(found)) this.details.set(Number(row), columns);
    } catch (error) {
      this.notice([error.message]);
      return;
    }
    for (const row of this.details.keys()) {
      if (this.details.size <= Page.DETAILS) break;
      this.details.delete(row);
    }
    for (const article of this.grid.mounted.values()) if (this.details.has(article.row)) this.words(article, this.details.get(article.row));
  }

  clicked(event) {
    const article = event.target.closest("article");
    if (!article) return;
    if (event.target.closest(".mark")) this.mark(article.row);
    else if (event.target.closest(".open")) this.view.open(article.place);
  }

  mark(row) {
    if (!this.canMark || row === undefined || row < 0) return;
    this.inTurn(async () => {
      const columns = this.details.get(row) ?? (await this.source.rows([row]))[row];
      return this.source.mark([row], !this.marks.has(columns.key));
    });
  }

  setMarks(keys) {
    this.marks = new Set(keys);
    const count = this.marks.size;
    this.part("marked").textContent = count ? `${count.toLocaleString("en")} marked, in ${this.state.marks}` : "";
    this.source.offer?.(this.part("marked"), keys);
    for (const article of this.grid.mounted.values()) if (this.details.has(article.row)) this.words(article, this.details.get(article.row));
    this.view.marked();
    if (this.masks.marked) this.find("marked", this.masks.marked.query);
  }

  key(event) {
    if (this.view.isOpen || event.ctrlKey || event.metaKey || event.altKey || !this.table) return;
    if (event.target.closest("input, select, textarea")) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    const { columns, cursor } = this.grid, page = columns * Math.max(1, Math.floor(innerHeight / this.grid.step) - 1);
    const ways = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns, PageDown: page, PageUp: -page };
    if (event.key in ways) this.grid.focus(cursor < 0 ? 0 : cursor + ways[event.key]);
    else if (event.key === "Home") this.grid.focus(0);
    else if (event.key === "End") this.grid.focus(this.grid.rows.length - 1);
    else if (event.key === "x" && cursor >= 0) this.mark(this.grid.rows[cursor]);
    else if (event.key === "/") {
      this.part("panel").open = true;
      this.part("text").focus();
    } else if (event.key === "?") {
      this.part("panel").open = this.part("help").open = true;
      this.part("help").scrollIntoView();
    } else return;
    event.preventDefault();
  }
}
