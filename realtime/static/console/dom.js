// Elements and text. What comes from others reaches the page through here, as text only.

export const $ = (id) => document.getElementById(id);

// An element: properties, then children, which are elements or text.
export function el(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined) continue;
    if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

export function show(element, visible) {
  element.hidden = !visible;
}

// Sets text where it is another, so that nothing is announced or drawn again for nothing.
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// Makes the children of a list or table those of `items`: what stays, by its key, stays the same
// element, so that focus and selection do, too.
export function fill(parent, items, key, make, update = () => {}) {
  const old = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  let place = parent.firstElementChild;
  for (const item of items) {
    const name = String(key(item));
    let child = old.get(name);
    if (child === undefined) {
      child = make(item);
      child.dataset.key = name;
    } else {
      old.delete(name);
    }
    update(child, item);
    if (child === place) place = place.nextElementSibling;
    else parent.insertBefore(child, place);
  }
  for (const child of old.values()) child.remove();
}

// A button that does what it says when it is pressed a second time.
export function sureButton(label, sure, act) {
  const button = el("button", { type: "button", className: "sure" }, label);
  let timer = 0;
  const back = () => {
    clearTimeout(timer);
    button.classList.remove("asked");
    button.textContent = label;
  };
  button.addEventListener("click", () => {
    if (!button.classList.contains("asked")) {
      button.classList.add("asked");
      button.textContent = sure;
      timer = setTimeout(back, 6000);
      return;
    }
    back();
    act();
  });
  button.addEventListener("blur", back);
  button.addEventListener("keydown", (event) => event.key === "Escape" && back());
  return button;
}

// Calls an async function now and then while it is wanted and the page is seen, never twice at
// once. `failed` is told of errors.
export function repeat(seconds, act, failed) {
  let timer = 0;
  let running = false;
  let wanted = false;
  const next = async () => {
    clearTimeout(timer);
    if (!wanted || running || document.hidden) return;
    running = true;
    try {
      await act();
      if (wanted) failed(null);
    } catch (error) {
      if (wanted) failed(error);
    }
    running = false;
    if (wanted) timer = setTimeout(next, seconds * 1000);
  };
  document.addEventListener("visibilitychange", next);
  return {
    start: () => { wanted = true; next(); },
    stop: () => { wanted = false; clearTimeout(timer); },
  };
}
