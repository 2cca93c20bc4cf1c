--- The page's script: a click on a table's header sorts it, a click in a legend hides a curve, and
-- the pointer shows values.
return [[
document.querySelectorAll("table.sortable th[data-sort]").forEach(function (th) {
  th.addEventListener("click", function () {
    var body = th.closest("table").tBodies[0], at = th.cellIndex, up = th.dataset.sort !== "up";
    function key(tr) {
      var td = tr.cells[at], v = td.dataset.v === undefined ? parseFloat(td.textContent) : +td.dataset.v;
      return isNaN(v) ? td.textContent : v;
    }
    var rows = Array.from(body.rows).map(function (tr, i) { return [key(tr), i, tr]; });
    rows.sort(function (a, b) {
      var d = typeof a[0] === typeof b[0] ? (a[0] < b[0] ? -1 : a[0] > b[0] ? 1 : 0) : typeof a[0] === "number" ? -1 : 1;
      return (up ? d : -d) || a[1] - b[1];
    });
    th.dataset.sort = up ? "up" : "down";
    rows.forEach(function (r) { body.appendChild(r[2]); });
  });
});
document.querySelectorAll("svg.chart .key").forEach(function (key) {
  key.addEventListener("click", function () {
    var off = key.classList.toggle("off");
    key.closest("svg").querySelector('.series[data-s="' + key.dataset.s + '"]').style.display = off ? "none" : "";
  });
});
var tip = document.body.appendChild(document.createElement("div"));
tip.id = "tip";
document.querySelectorAll("svg.chart").forEach(function (svg) {
  var lines = Array.from(svg.querySelectorAll(".series polyline")).map(function (l) {
    var px = l.getAttribute("points").split(" ").map(parseFloat), v = l.dataset.v.split(" ").map(Number);
    var g = l.closest(".series");
    return { px: px, v: v, g: g, name: g.querySelector("title").textContent };
  });
  if (!lines.length) return;
  svg.addEventListener("mouseleave", function () { tip.style.display = "none"; });
  svg.addEventListener("mousemove", function (e) {
    var box = svg.getBoundingClientRect(), x = (e.clientX - box.left) * svg.viewBox.baseVal.width / box.width;
    var best = null, rows = [];
    lines.forEach(function (l) {
      l.px.forEach(function (p, i) { if (!best || Math.abs(p - x) < best.d) best = { d: Math.abs(p - x), v: l.v[2 * i] }; });
    });
    if (!best || best.d > 40) { tip.style.display = "none"; return; }
    lines.forEach(function (l) {
      if (l.g.style.display === "none") return;
      for (var i = 0; i < l.v.length; i += 2) if (l.v[i] === best.v) rows.push([l.v[i + 1], l.name]);
    });
    rows.sort(function (a, b) { return b[0] - a[0]; });
    tip.textContent = "at " + best.v + "\n" + rows.map(function (r) { return r[0] + "  " + r[1]; }).join("\n");
    tip.style.display = "block";
    tip.style.left = Math.min(e.clientX + 14, innerWidth - tip.offsetWidth - 6) + "px";
    tip.style.top = Math.min(e.clientY + 14, innerHeight - tip.offsetHeight - 6) + "px";
  });
});
]]
