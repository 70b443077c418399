// The API's reference: Swagger UI on the description of this server, in the panel's theme.
const root = document.documentElement;
const place = document.getElementById("reference");

const followTheme = () => root.classList.toggle("dark-mode", root.dataset.bsTheme === "dark");
followTheme();
new MutationObserver(followTheme).observe(root, { attributeFilter: ["data-bs-theme"] });

// Swagger UI takes itself for a page, with a <main>; here it is a part of one that has its own, where no level of
// headings is left out. What React keeps in that element never changes but further down.
function joinPage() {
  const inner = place.querySelector("main");
  const part = document.createElement("div");
  part.id = inner.id;
  const heading = document.createElement("h2");
  heading.className = "visually-hidden";
  heading.textContent = place.dataset.heading;
  part.append(heading, ...inner.childNodes);
  inner.replaceWith(part);
}

window.SwaggerUIBundle({
  url: place.dataset.document,
  domNode: place,
  deepLinking: true,
  docExpansion: "none",
  defaultModelsExpandDepth: 0,
  defaultModelExpandDepth: 3,
  filter: true,
  persistAuthorization: false,
  validatorUrl: null,
  onComplete: () => {
    joinPage();
    // A list without a name says nothing to those who hear it.
    place.querySelector("#servers")?.setAttribute("aria-label", "Server");
    place.dataset.drawn = "";
  },
});
