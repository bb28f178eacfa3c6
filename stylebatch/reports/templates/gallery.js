const cards = [...document.querySelectorAll("article")];
const control = (id) => document.getElementById(id);
const value = (id) => (control(id) ? control(id).value : "");
function filter() {
  const text = value("text").trim().toLowerCase(), style = value("style"), label = value("label");
  let count = 0;
  for (const card of cards) {
    const data = card.dataset;
    card.hidden = !(data.text.includes(text) && (!style || data.style === style) && (!label || data.label === label));
    count += !card.hidden;
  }
  control("count").textContent = count.toLocaleString("en") + " shown";
}
function sort() {
  const [column, sign] = value("sort").split(" ");
  const ordered = cards.slice().sort((a, b) => sign * (a.dataset[column] - b.dataset[column]) || a.dataset.order - b.dataset.order);
  control("cards").append(...ordered);
}
control("controls").addEventListener("submit", (event) => event.preventDefault());
control("controls").addEventListener("input", filter);
control("sort").addEventListener("input", sort);
filter();
sort();
