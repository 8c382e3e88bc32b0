// The live part of a page arrives as server-sent events from the address of the page. Without this
// script, pages do not update.
(() => {
  const part = document.querySelector("[data-live]");
  let stream = null;
  let waiting = null;

  // Do not replace the part while the user works in it.
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

  // The response was not a stream, and browsers do not retry after that. Fetch the page to find out
  // its status.
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
    // Over HTTP/1.1, a browser opens at most six connections to a site. Hidden pages close theirs.
    document.addEventListener("visibilitychange", () => (document.hidden ? end() : begin()));
    window.addEventListener("pagehide", end);
    window.addEventListener("pageshow", begin);
    part.addEventListener("focusout", () => setTimeout(() => waiting !== null && put(waiting)));
    part.addEventListener("change", () => waiting !== null && put(waiting));
  }

  // A checkbox in a table's head selects all rows.
  document.addEventListener("change", (event) => {
    if (!event.target.matches("input[data-all]")) return;
    const boxes = event.target.closest("table").querySelectorAll("tbody input[type=checkbox]");
    boxes.forEach((box) => (box.checked = event.target.checked));
  });
})();
