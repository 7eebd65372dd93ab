/** One stream of summaries for all tabs. */

import { LiveRuns } from "./live-runs.js";

/** @type {Set<MessagePort>} */
const tabs = new Set();
const live = new LiveRuns((news) => {
  for (const tab of tabs) tab.postMessage(news);
});

addEventListener("connect", (event) => {
  const tab = /** @type {MessageEvent} */ (event).ports[0];
  if (!tab) return;
  const hello = () => {
    tabs.add(tab);
    for (const news of live.sofar()) tab.postMessage(news);
  };
  tab.onmessage = ({ data }) => {
    if (data === "bye") tabs.delete(tab);
    else hello();
  };
  hello();
});
