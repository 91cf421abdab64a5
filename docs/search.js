/* What a search finds, in the order in which it helps: pages named so first, long lists of results last. */
const sought = (new URLSearchParams(location.search).get("q") || "").trim().toLowerCase();
const LISTS = ["changelog", "checks", "errors"];
const named = (title) => title.toLowerCase().replaceAll("_", " ").includes(sought.replaceAll("_", " "));
var Scorer = {
  score: ([page, title, , , score]) => score + (named(title) ? 10 : 0) - (LISTS.includes(page) ? 20 : 0),
  // as Sphinx has them
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};
