// Passkeys: asks the browser for one, and sends what it answers with the form around the button.
const PROBLEMS = { NotAllowedError: "refused", AbortError: "refused", InvalidStateError: "double", SecurityError: "address" };

const bytes = (text) => Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), (one) => one.charCodeAt(0));
const text = (buffer) => btoa(String.fromCharCode(...new Uint8Array(buffer))).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
const named = (list) => (list ?? []).map((one) => ({ ...one, id: bytes(one.id) }));

// What the server sends in base64url the browser takes as bytes (and the other way round, below).
function creation({ publicKey }) {
  const user = { ...publicKey.user, id: bytes(publicKey.user.id) };
  // A key that names its owner by itself and proves that it is they: one signs in with nothing else.
  const authenticatorSelection = { ...publicKey.authenticatorSelection, residentKey: "required", requireResidentKey: true, userVerification: "required" };
  const excludeCredentials = named(publicKey.excludeCredentials);
  return { publicKey: { ...publicKey, user, challenge: bytes(publicKey.challenge), excludeCredentials, authenticatorSelection } };
}

function request({ publicKey }) {
  return { publicKey: { ...publicKey, challenge: bytes(publicKey.challenge), allowCredentials: named(publicKey.allowCredentials) } };
}

function answer(credential) {
  const response = {};
  for (const name of ["clientDataJSON", "attestationObject", "authenticatorData", "signature", "userHandle"]) {
    if (credential.response[name]) response[name] = text(credential.response[name]);
  }
  const { id, type, authenticatorAttachment } = credential;
  return { id, rawId: text(credential.rawId), type, authenticatorAttachment, response, clientExtensionResults: credential.getClientExtensionResults() };
}

async function options(form) {
  const inPage = document.getElementById("passkey-options");
  if (inPage) return JSON.parse(inPage.textContent);
  const reply = await fetch(form.action, { headers: { Accept: "application/json" } });
  if (!reply.ok) throw new Error(`status ${reply.status}`);
  return reply.json();
}

async function ask(form) {
  const given = await options(form);
  return form.dataset.passkey === "create"
    ? navigator.credentials.create(creation(given.creation_options))
    : navigator.credentials.get(request(given.request_options));
}

function say(form, problem) {
  const place = form.querySelector("[data-passkey-problem]");
  place.querySelector("span").textContent = place.dataset[problem];
  place.hidden = false;
}

document.addEventListener("submit", async (event) => {
  const form = event.target;
  if (!form.dataset.passkey) return;
  event.preventDefault();
  form.querySelector("[data-passkey-problem]").hidden = true;
  if (!globalThis.PublicKeyCredential) return say(form, "unsupported");
  const button = form.querySelector("[type=submit]");
  button.disabled = true;
  try {
    form.elements.credential.value = JSON.stringify(answer(await ask(form)));
    form.submit();
  } catch (problem) {
    say(form, PROBLEMS[problem.name] ?? "failed");
    button.disabled = false;
  }
});
