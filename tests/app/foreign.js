// What a page can try on another site, in the browser of somebody who is logged in there.
// Each try ends with what it could read or bring about; "" is nothing.

let limitMs = 3000;

function within(made) {
  const late = new Promise((done) => setTimeout(done, limitMs, ""));
  return Promise.race([new Promise(made), late]).catch(() => "");
}

// An element that loads something: `said` makes a text of it once it is there.
function element(name, attributes, said) {
  return within((done) => {
    const one = Object.assign(document.createElement(name), attributes);
    one.onload = one.onloadeddata = () => done(said(one));
    one.onerror = () => done("");
    document.body.append(one);
  });
}

async function read(url, options = {}) {
  const ended = new AbortController();
  setTimeout(() => ended.abort(), limitMs);
  try {
    const told = { credentials: "include", signal: ended.signal, ...options };
    const reply = await fetch(url, told);
    return reply.ok ? await reply.text() : "";
  } catch {
    return "";
  }
}

// In a frame, or in a window of its own: there, SameSite=Lax cookies would be sent.
function submit(url, kind, fields, target) {
  return within((done) => {
    const form = document.createElement("form");
    Object.assign(form, { action: url, method: "post", enctype: kind, target });
    for (const [name, value] of Object.entries(fields)) {
      const input = document.createElement("input");
      Object.assign(input, { name, value });
      if (value instanceof File) {
        const files = new DataTransfer();
        files.items.add(value);
        Object.assign(input, { type: "file" }).files = files.files;
      }
      form.append(input);
    }
    document.body.append(form);
    form.submit();
    setTimeout(done, limitMs / 6, "");
  });
}

function xhr(method, url, body, headers) {
  return within((done) => {
    const asked = new XMLHttpRequest();
    asked.open(method, url);
    asked.withCredentials = true;
    for (const [name, value] of Object.entries(headers)) asked.setRequestHeader(name, value);
    let sent = "";
    asked.upload.onload = () => (sent = "sent");
    asked.onload = () => done(asked.status === 200 ? asked.responseText + sent : "");
    asked.onerror = () => done("");
    asked.send(body);
  });
}

function worker(url) {
  const code = `try { importScripts("${url}"); postMessage("ran"); } catch { postMessage(""); }`;
  return within((done) => {
    const one = new Worker(URL.createObjectURL(new Blob([code])));
    one.onmessage = (message) => done(message.data);
    one.onerror = () => done("");
  });
}

function opened(url, said) {
  return within((done) => {
    const one = window.open(url);
    if (one === null) throw new Error("no window was opened");
    const look = () => {
      let told = "";
      try {
        told = said(one);
      } catch {}
      one.close();
      done(told);
    };
    setTimeout(look, limitMs / 2);
  });
}

// page: the address of the other site. picture: the path of a picture of its user.
// asked: what its user would send to draw. slow: how busy the machine is, 1 if it is not.
async function tries(page, picture, asked, slow) {
  limitMs *= slow;
  const api = `${page}/gradio_api`;
  const file = () => new File([new Uint8Array(2000)], "evil.png", { type: "image/png" });
  const form = () => {
    const body = new FormData();
    body.append("files", file());
    return body;
  };
  const json = { "content-type": "application/json" };
  const draw = JSON.stringify(asked);
  const frame = document.createElement("iframe");
  frame.name = "frame";
  document.body.append(frame);
  const size = (one) => `${one.naturalWidth || one.videoWidth || 1}`;
  const inside = (one) => {
    try {
      return one.contentDocument.body.innerText;
    } catch {
      return "";
    }
  };
  const all = {
    config: () => read(`${page}/config`),
    "config without cors": () => read(`${page}/config`, { mode: "no-cors" }),
    "the page": () => read(page),
    "a picture": () => read(`${api}/file=${picture}`),
    token: () => read(`${api}/token`),
    info: () => read(`${api}/info`),
    draw: () => read(`${api}/queue/join`, { method: "POST", headers: json, body: draw }),
    "draw as text": () => read(`${api}/queue/join`, { method: "POST", mode: "no-cors", body: draw }),
    "draw by a form": () => submit(`${api}/queue/join`, "text/plain", { [draw]: "" }, "frame"),
    "draw by a window": () => submit(`${api}/queue/join`, "text/plain", { [draw]: "" }, "_blank"),
    "draw by a beacon": () => (navigator.sendBeacon(`${api}/queue/join`, draw), ""),
    upload: () => read(`${api}/upload`, { method: "POST", body: form() }),
    "upload without cors": () =>
      read(`${api}/upload`, { method: "POST", mode: "no-cors", body: form() }),
    "upload by a form": () =>
      submit(`${api}/upload`, "multipart/form-data", { files: file() }, "frame"),
    "upload by a window": () =>
      submit(`${api}/upload`, "multipart/form-data", { files: file() }, "_blank"),
    "upload by XMLHttpRequest": () => xhr("POST", `${api}/upload`, form(), {}),
    "ask with a header": () => xhr("GET", `${page}/config`, null, { "x-ask": "1" }),
    "other methods": () => read(`${page}/config`, { method: "DELETE" }),
    "log in": () => submit(`${page}/login`, "multipart/form-data", { username: "eve" }, "frame"),
    cancel: () => read(`${api}/cancel`, { method: "POST", mode: "no-cors", body: "{}" }),
    "an image": () => element("img", { src: `${api}/file=${picture}` }, size),
    icon: () => element("img", { src: `${page}/favicon.ico` }, size),
    "an image with cors": () =>
      element("img", { src: `${api}/file=${picture}`, crossOrigin: "use-credentials" }, size),
    video: () => element("video", { src: `${api}/file=${picture}` }, size),
    script: () => element("script", { src: `${page}/config` }, () => "script"),
    style: () =>
      element("link", { rel: "stylesheet", href: `${page}/theme.css` }, (one) =>
        [...one.sheet.cssRules].map((rule) => rule.cssText).join(),
      ),
    object: () => element("object", { data: `${api}/file=${picture}` }, inside),
    "a frame": () => element("iframe", { src: page }, inside),
    "a frame of config": () => element("iframe", { src: `${page}/config` }, inside),
    worker: () => worker(`${page}/config`),
    events: () =>
      within((done) => {
        const url = `${api}/queue/data?session_hash=evil`;
        const one = new EventSource(url, { withCredentials: true });
        one.onopen = () => done("open");
        one.onerror = () => done("");
      }),
    heartbeat: () =>
      within((done) => {
        const one = new EventSource(`${api}/heartbeat/evil`, { withCredentials: true });
        one.onopen = () => done("open");
        one.onerror = () => done("");
      }),
    websocket: () =>
      within((done) => {
        const one = new WebSocket(`${api}/queue/join`.replace("http", "ws"));
        one.onopen = () => done("open");
        one.onerror = () => done("");
      }),
    "a window of config": () => opened(`${page}/config`, (one) => one.document.body.innerText),
    "a window of a picture": () =>
      opened(`${api}/file=${picture}`, (one) => one.document.body.innerHTML),
    "a window that logs out": () => opened(`${page}/logout`, (one) => one.document.body.innerText),
    "a window of the page": () => opened(page, (one) => one.document.body.innerText),
    "what is in a window": () =>
      opened(page, (one) => (one.closed || one.length === 0 ? "" : `${one.length} frames`)),
    "log out": () => read(`${page}/logout`, { mode: "no-cors" }),
  };
  const found = {};
  for (const [name, run] of Object.entries(all)) found[name] = String(await run());
  return found;
}
