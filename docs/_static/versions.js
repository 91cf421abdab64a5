/* The versions that lie beside this one, each at the page that is being read, where it has that page. */
{
  const place = document.querySelector(".versions");
  const root = new URL(place.dataset.root || "./", location);
  const own = root.pathname.split("/").at(-2);
  const others = Object.keys(lyaptorchVersions).filter((name) => encodeURIComponent(name) !== own);
  if (others.length) place.querySelector("span").remove();
  for (const name of others) {
    const page = lyaptorchVersions[name].includes(place.dataset.page) ? place.dataset.page : "index.html";
    const link = document.createElement("a");
    link.href = new URL(`../${encodeURIComponent(name)}/${page}`, root);
    link.textContent = name;
    place.append(link);
  }
}
