// A page's live part comes as server-sent events from the page's own address. Without this script,
// pages stay as they were when loaded.
(() => {
  const part = document.querySelector("[data-live]");
  let stream = null;
  let waiting = null;

  // Somebody who is at work in it shall not have it pulled away.
  const busy = () =>
    part.querySelector("input[type=checkbox]:checked, details[open] form") !== null ||
    (part.contains(document.activeElement) &&
      document.activeElement.matches("input, select, textarea, button, summary"));

  const put = (html) => {
    if (busy()) {
      waiting = html;
      return;
    }
    waiting = null;
    const open = [...part.querySelectorAll("details[open][id]")].map((one) => one.id);
    const active = document.activeElement;
    const at = part.contains(active) ? active.getAttribute("href") : null;
    part.innerHTML = html;
    open.forEach((id) => document.getElementById(id)?.setAttribute("open", ""));
    if (at === null) return;
    [...part.querySelectorAll("a")].find((one) => one.getAttribute("href") === at)?.focus();
  };

  const begin = () => {
    if (stream !== null || document.hidden) return;
    stream = new EventSource(location.href);
    stream.addEventListener("live", (event) => put(event.data));
    stream.addEventListener("end", () => location.reload());
    stream.addEventListener("error", () => stream?.readyState === EventSource.CLOSED && refused());
  };

  // The server answered with something other than a stream, and a browser does not retry then.
  // Fetch the page to see what it is now.
  const refused = async () => {
    end();
    const answer = await fetch(location.href, { redirect: "manual" }).catch(() => null);
    answer?.body?.cancel();
    if (answer?.ok || answer === null || answer.status >= 500) setTimeout(begin, 5000);
    else location.reload();
  };

  const end = () => {
    stream?.close();
    stream = null;
  };

  if (part !== null) {
    begin();
    // A browser has six connections to a site over HTTP/1.1: hidden pages close theirs.
    document.addEventListener("visibilitychange", () => (document.hidden ? end() : begin()));
    window.addEventListener("pagehide", end);
    window.addEventListener("pageshow", begin);
    part.addEventListener("focusout", () => setTimeout(() => waiting !== null && put(waiting)));
    part.addEventListener("change", () => waiting !== null && put(waiting));
  }

  // A box in a table's head ticks all below it.
  document.addEventListener("change", (event) => {
    if (!event.target.matches("input[data-all]")) return;
    const boxes = event.target.closest("table").querySelectorAll("tbody input[type=checkbox]");
    boxes.forEach((box) => (box.checked = event.target.checked));
  });
})();
