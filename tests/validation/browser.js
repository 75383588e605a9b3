// Looks at each frame once all are loaded; what it saw is JSON in #seen. Run by tests/validation/browser.py.
const NAMED = "a[href], summary, button, input, select, textarea, [tabindex]";

const name = element => `${element.tagName.toLowerCase()}${element.id ? "#" + element.id : ""} ${(element.textContent || "").trim().slice(0, 40)}`;

function luminance(colour) {
  const [r, g, b] = colour.match(/[\d.]+/g).slice(0, 3).map(Number).map(v => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

function ground(element, view) {
  for (let at = element; at; at = at.parentElement) {
    const colour = view.getComputedStyle(at).backgroundColor;
    if (!/rgba\(.*, 0\)|transparent/.test(colour)) return colour;
  }
  return "rgb(255, 255, 255)";
}

// Text of less contrast than 4.5 to 1 (WCAG 2.2, 1.4.3).
function faint(doc, view) {
  const found = [], walk = doc.createTreeWalker(doc.body, 4);
  for (let node = walk.nextNode(); node; node = walk.nextNode()) {
    const element = node.parentElement;
    if (!node.data.trim() || !element.getClientRects().length || element.closest("title, desc")) continue;
    const style = view.getComputedStyle(element), ink = element.closest("svg") ? style.fill : style.color;
    const [low, high] = [luminance(ink), luminance(ground(element, view))].sort((a, b) => a - b);
    const contrast = (high + 0.05) / (low + 0.05);
    if (contrast < 4.5) found.push(`${contrast.toFixed(2)} ${ink} ${name(element)}`);
  }
  return found;
}

// What reaches beyond the page, except inside a box that scrolls by itself.
function wide(doc, view) {
  const width = doc.documentElement.clientWidth;
  const scrolls = element => { const box = element.closest(".wide"); return box && box !== element; };
  const out = [...doc.body.querySelectorAll("*")].filter(e => e.getBoundingClientRect().right > width + 1 && !scrolls(e) && !e.closest("svg *"));
  return { page: doc.documentElement.scrollWidth - width, elements: out.map(name) };
}

function reached(doc) {
  const all = [...doc.querySelectorAll(NAMED)];
  return { count: all.length, unreached: all.filter(e => { e.focus(); return e.tabIndex < 0 || doc.activeElement !== e; }).map(name) };
}

function pictures(doc) {
  return [...doc.querySelectorAll("svg")].map(svg => {
    const box = svg.getBoundingClientRect(), title = svg.querySelector(":scope > title");
    const words = svg.getAttribute("role") === "img" && title ? title.textContent.trim() : "";
    return { width: box.width, height: box.height, children: svg.querySelectorAll("path, polyline, rect, circle, use").length, words };
  });
}

function look(frame) {
  const doc = frame.contentDocument, view = frame.contentWindow;
  const folded = wide(doc, view);
  doc.querySelectorAll("details").forEach(e => { e.open = true; });
  return {
    folded, unfolded: wide(doc, view), faint: faint(doc, view), keyboard: reached(doc), pictures: pictures(doc),
    dark: view.matchMedia("(prefers-color-scheme: dark)").matches, width: doc.documentElement.clientWidth,
    headings: [...doc.querySelectorAll("h1, h2, h3, h4, h5, h6")].map(e => Number(e.tagName[1])),
    bare: [...doc.querySelectorAll("figure")].filter(e => !e.querySelector("svg[role=img] > title, table")).map(name),
    scrolling: [...doc.querySelectorAll("*")].filter(e => e.scrollWidth > e.clientWidth + 1 && /auto|scroll/.test(view.getComputedStyle(e).overflowX)
      && e.tabIndex < 0).map(name),
    lost: [...doc.querySelectorAll("a[href^='#']")].filter(e => !doc.getElementById(e.getAttribute("href").slice(1))).map(name),
    twice: [...doc.querySelectorAll("[id]:not(svg *)")].map(e => e.id).filter((id, at, all) => all.indexOf(id) !== at),
    unscoped: [...doc.querySelectorAll("th:not([scope])")].map(name),
  };
}

addEventListener("load", () => {
  const seen = {};
  for (const frame of document.querySelectorAll("iframe")) seen[frame.name] = look(frame);
  document.getElementById("seen").textContent = JSON.stringify(seen);
});
