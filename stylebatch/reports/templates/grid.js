"use strict";
/**
 * Cards of samples of which only those near the window exist. `card(article, row)` fills one, `ended(article)` is told that it goes.
 *
 * A browser's elements have an end of height: beyond `HIGHEST` the scroll bar covers more than a pixel each, while short ways go
 * pixel by pixel.
 */
class Grid {
  static HIGHEST = 8e6;
  static WIDTH = 210;
  static GAP = 12;
  static TEXT = 62;
  /** Height of the line above the grid, which stays in sight. */
  static BAR = 40;

  constructor(element, template, { card, ended }) {
    Object.assign(this, { element, template, card, ended });
    this.rows = new Uint32Array(0);
    this.mounted = new Map();
    this.cursor = -1;
    this.top = 0;
    this.scrolled = 0;
    this.spare = [];
    addEventListener("scroll", () => this.soon(), { passive: true });
    new ResizeObserver(() => this.measure()).observe(element.parentElement);
  }

  show(rows) {
    this.rows = rows;
    this.cursor = Math.min(this.cursor, rows.length - 1);
    // a card of a sample that stays where it is stays as it is
    for (const [place, article] of [...this.mounted]) if (rows[place] !== article.row) this.unmount(place);
    this.measure();
  }

  measure() {
    const width = this.element.clientWidth;
    if (!width) return;
    this.columns = Math.max(width < 420 ? 2 : 1, Math.floor((width + Grid.GAP) / (Grid.WIDTH + Grid.GAP)));
    this.side = Math.floor((width - Grid.GAP * (this.columns - 1)) / this.columns);
    this.step = this.side + Grid.TEXT + Grid.GAP;
    this.total = Math.ceil(this.rows.length / this.columns) * this.step;
    this.height = Math.min(this.total, Grid.HIGHEST);
    this.element.style.height = `${this.height}px`;
    this.scrolled = this.offset();
    this.top = this.mapped(this.scrolled);
    this.render();
  }

  /** Pixels of the grid above the window. */
  offset() {
    return Math.max(0, -this.element.getBoundingClientRect().top);
  }

  mapped(offset) {
    const way = Math.max(1, this.height - innerHeight), whole = Math.max(1, this.total - innerHeight);
    return this.total === this.height ? offset : Math.min(1, offset / way) * whole;
  }

  soon() {
    if (this.asked) return;
    this.asked = true;
    requestAnimationFrame(() => {
      this.asked = false;
      const now = this.offset(), way = now - this.scrolled;
      const isShort = Math.abs(way) < 3 * innerHeight && now > 0 && now < this.height - innerHeight;
      // where the bar is compressed, short ways stay what they are
      this.top = this.total !== this.height && isShort ? Math.max(0, Math.min(this.total, this.top + way)) : this.mapped(now);
      this.scrolled = now;
      this.render();
    });
  }

  render() {
    if (!this.step) return;
    const first = Math.max(0, Math.floor(this.top / this.step) - 1) * this.columns;
    const last = Math.min(this.rows.length, (Math.ceil((this.top + innerHeight) / this.step) + 1) * this.columns);
    for (const place of [...this.mounted.keys()]) if (place < first || place >= last) this.unmount(place);
    for (let place = first; place < last; place++) this.mount(place);
  }

  mount(place) {
    const isNew = !this.mounted.has(place), article = this.mounted.get(place) ?? this.fresh(place);
    const open = article.querySelector(".open");
    article.setAttribute("aria-setsize", this.rows.length);
    article.style.width = open.style.height = `${this.side}px`;
    article.style.height = `${this.step - Grid.GAP}px`;
    const x = (place % this.columns) * (this.side + Grid.GAP);
    const y = Math.floor(place / this.columns) * this.step + (this.scrolled - this.top);
    article.style.transform = `translate(${x}px, ${y}px)`;
    if (isNew) this.card(article, article.row);
  }

  fresh(place) {
    const article = this.spare.pop() ?? this.template.content.firstElementChild.cloneNode(true);
    article.setAttribute("aria-posinset", place + 1);
    article.place = place;
    article.row = this.rows[place];
    // in their order, in which the tabulator goes from one to the next
    let next = null;
    for (const other of this.mounted.values()) if (other.place > place && !(next?.place < other.place)) next = other;
    this.element.insertBefore(article, next);
    this.mounted.set(place, article);
    return article;
  }

  unmount(place) {
    const article = this.mounted.get(place);
    this.mounted.delete(place);
    this.ended(article);
    article.remove();
    // no more than a screen of them: what is not used again is let go
    if (this.spare.length < 64) this.spare.push(article);
  }

  /** Puts the focus on the card at `place`, wherever it is. */
  focus(place) {
    if (!this.rows.length) return;
    this.cursor = Math.max(0, Math.min(this.rows.length - 1, place));
    const y = Math.floor(this.cursor / this.columns) * this.step;
    const above = this.element.getBoundingClientRect().top + this.scrolled - this.top + y - Grid.BAR, below = above + Grid.BAR + this.step - innerHeight;
    if (above < 0 || below > 0) {
      if (this.total !== this.height) this.to(above < 0 ? y - Grid.BAR : y + this.step - innerHeight);
      else {
        scrollBy(0, above < 0 ? above : below);
        this.scrolled = this.top = this.offset();
        this.render();
      }
    }
    this.mounted.get(this.cursor)?.querySelector(".open").focus({ preventScroll: true });
  }

  to(top) {
    const clamped = Math.max(0, Math.min(top, this.total - innerHeight));
    const share = this.total === this.height ? clamped : (clamped / Math.max(1, this.total - innerHeight)) * (this.height - innerHeight);
    scrollTo(scrollX, scrollY + this.element.getBoundingClientRect().top + share);
    this.scrolled = this.offset();
    this.top = clamped;
    this.render();
  }
}
