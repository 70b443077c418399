// The API's reference: Swagger UI on the description of this server, in the panel's theme.
const root = document.documentElement;
const place = document.getElementById("reference");

const followTheme = () => root.classList.toggle("dark-mode", root.dataset.bsTheme === "dark");
followTheme();
new MutationObserver(followTheme).observe(root, { attributeFilter: ["data-bs-theme"] });

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
    // A list without a name says nothing to those who hear it.
    place.querySelector("#servers")?.setAttribute("aria-label", "Server");
    place.dataset.drawn = "";
  },
});
