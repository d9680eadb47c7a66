"""How a report looks: light and dark, on a phone, on paper. No font, picture or script from elsewhere."""

STYLE = """
:root{color-scheme:light dark;--paper:#fff;--ink:#1b2127;--soft:#56616c;--line:#d8dee4;--panel:#f5f7f9;
--float:#0b62a8;--passed:#0a7a52;--rejected:#bf3f0a;--failed:#66707a;
--violet:#8a3fb0;--ochre:#8a6000;--pink:#b8246c;--teal:#0e7482;--slate:#4d6070}
@media screen and (prefers-color-scheme:dark){:root{--paper:#11161b;--ink:#e6ebf0;--soft:#9eabb7;--line:#2d3742;
--panel:#19212a;--float:#6fb7f5;--passed:#4ccb92;--rejected:#ff9466;--failed:#9aa6b2;
--violet:#d08cf0;--ochre:#e0b040;--pink:#ff86b8;--teal:#5fd0de;--slate:#a9bac6}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,
"Helvetica Neue","Noto Sans","DejaVu Sans",sans-serif;overflow-wrap:anywhere}
main{max-width:1140px;margin:0 auto;padding:24px 20px 56px}
h1{font-size:1.65rem;line-height:1.25;margin:0 0 16px}
h2{font-size:1.2rem;line-height:1.3;margin:40px 0 4px}
p{margin:0 0 8px}
.note,.soft,figcaption{color:var(--soft);font-size:.875rem}
.note{max-width:76ch;margin-bottom:12px}
.soft{display:block}td .soft{font-size:.93em}
code{font:.875em ui-monospace,"DejaVu Sans Mono",Menlo,Consolas,monospace}
.verdict{border:1px solid var(--line);border-left:6px solid var(--soft);border-radius:8px;background:var(--panel);
padding:16px 20px}
.verdict h2{margin:0 0 6px;font-size:1.35rem}
.verdict ul,.mind ul{margin:8px 0 0;padding-left:1.2em}
.mind{margin-top:14px;border-left:6px solid var(--rejected);padding:2px 0 2px 14px}.mind ul{margin:0}
.verdict.passed{border-left-color:var(--passed)}.verdict.passed h2{color:var(--passed)}
.verdict.rejected{border-left-color:var(--rejected)}.verdict.rejected h2{color:var(--rejected)}
.figures{display:flex;flex-wrap:wrap;gap:10px;margin:14px 0 0}
.figures div{flex:1 1 150px;background:var(--paper);border:1px solid var(--line);border-radius:6px;padding:8px 12px}
.figures b{display:block;font-size:1.45rem;line-height:1.2;font-variant-numeric:tabular-nums}
.figures span{color:var(--soft);font-size:.8125rem;line-height:1.35;display:block}
.charts{display:grid;grid-template-columns:minmax(0,5fr) minmax(0,3fr);gap:24px;align-items:start}
.charts.even{grid-template-columns:repeat(2,minmax(0,1fr))}
figure{margin:0}
svg{display:block;width:100%;height:auto;overflow:visible;font-family:inherit}
svg text{fill:var(--ink);font-size:12px}
svg .quiet{fill:var(--soft)}
svg .grid{stroke:var(--line);stroke-width:1}
svg .axis{stroke:var(--soft);stroke-width:1}
svg .limit{stroke:var(--rejected);stroke-width:1;stroke-dasharray:5 4}
svg .leader{stroke:var(--soft);stroke-width:.75}
svg .label{paint-order:stroke;stroke:var(--paper);stroke-width:3px;stroke-linejoin:round}
svg .chosen{font-weight:700}
.k-float{--k:var(--float)}.k-passed{--k:var(--passed)}.k-rejected{--k:var(--rejected)}.k-failed{--k:var(--failed)}
.k-not-judged{--k:var(--ochre)}
.c0{--k:var(--float)}.c1{--k:var(--rejected)}.c2{--k:var(--passed)}.c3{--k:var(--violet)}
.c4{--k:var(--ochre)}.c5{--k:var(--pink)}.c6{--k:var(--teal)}.c7{--k:var(--slate)}
svg .mark{fill:var(--k);stroke:var(--k)}
svg .whisker{stroke:var(--k);stroke-width:1.5;opacity:.6}
svg .ring{fill:none;stroke:var(--ink);stroke-width:2}
svg .curve{fill:none;stroke:var(--k);stroke-width:2;stroke-linejoin:round}
svg .dashed{stroke-dasharray:5 4;stroke-width:1.25}
svg .mark-line{stroke:var(--soft);stroke-width:1;stroke-dasharray:2 3}
svg .name{fill:var(--k)}
.narrow{display:none}
.legend{display:flex;flex-wrap:wrap;gap:4px 18px;margin:0 0 8px;padding:0;list-style:none;font-size:.875rem}
.legend li{display:flex;align-items:center;gap:6px}
.legend svg{width:16px;height:16px;flex:none}
.table{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:.875rem;font-variant-numeric:tabular-nums}
th{color:var(--soft);font-weight:600;text-align:left;white-space:nowrap;vertical-align:bottom;font-size:.8125rem}
th,td{padding:7px 10px 7px 0;border-bottom:1px solid var(--line);overflow-wrap:normal}
td{vertical-align:top;white-space:nowrap}
td.broad{white-space:normal;overflow-wrap:anywhere;min-width:6.5em}
td:first-child{min-width:13em}td:last-child{width:30%}
tr.chosen{background:var(--panel)}
tr.chosen td:first-child{box-shadow:inset 3px 0 var(--passed)}
td:first-child{padding-left:8px}th:first-child{padding-left:8px}
.tag{color:var(--k);font-weight:600;white-space:nowrap}
.reasons{margin:2px 0 0;padding-left:1.1em}
.share{display:block;height:8px;border-radius:2px;background:var(--rejected);min-width:1px}
dl{display:grid;grid-template-columns:minmax(110px,max-content) minmax(0,1fr);gap:4px 20px;margin:0;font-size:.875rem}
dt{color:var(--soft)}dd{margin:0}
h3{font-size:1rem;margin:16px 0 6px}
summary{cursor:pointer;color:var(--soft);font-size:.875rem;margin:8px 0}
.spaced{margin-top:16px}
.pair{margin:0 0 24px}
.pair div{display:grid;grid-template-columns:repeat(2,minmax(0,1fr));gap:8px}
.pair p{margin:0 0 4px}
img{display:block;max-width:100%;height:auto}
.pair img{width:100%;max-height:460px;object-fit:contain;object-position:0 0}
@media(max-width:980px){.charts,.charts.even{grid-template-columns:minmax(0,1fr)}.charts figure{max-width:760px}
.charts .small{max-width:460px}
thead{display:none}table,tbody{display:block}
tr{display:grid;grid-template-columns:repeat(auto-fill,minmax(68px,1fr));gap:4px 10px;border:1px solid var(--line);
border-radius:6px;padding:10px 12px;margin:0 0 10px}
td,td:first-child,td:last-child{display:block;border:0;padding:0;width:auto;min-width:0}td.broad{grid-column:1/-1}
td:not(.broad)::before{content:attr(data-label);display:block;color:var(--soft);font-size:.75rem;line-height:1.2}
tr.chosen td:first-child{box-shadow:none}tr.chosen{border-left:4px solid var(--passed)}}
@media(max-width:640px){
main{padding:16px 14px 40px}h1{font-size:1.35rem}.verdict{padding:12px 14px}
.wide{display:none}.narrow{display:block}
.pair div{grid-template-columns:minmax(0,1fr)}
dl{grid-template-columns:minmax(0,1fr);gap:0}dd{margin-bottom:8px}}
@media print{main{max-width:none;padding:0}body{font-size:11pt}h2{break-after:avoid}
figure,.pair,.verdict,tr,dl>*{break-inside:avoid}.verdict,.figures div,tr.chosen,.share,.mark{print-color-adjust:exact}
table{font-size:8.5pt}.pair img{max-height:9cm;object-fit:contain}}
"""
