for (const box of document.querySelectorAll(".compare")) {
  const range = box.querySelector("input");
  const show = () => box.style.setProperty("--cut", range.value + "%");
  range.addEventListener("input", show);
  show();
}
for (const pair of document.querySelectorAll(".pair")) {
  const windows = [...pair.querySelectorAll(".window")];
  for (const one of windows) {
    one.scrollTo((one.scrollWidth - one.clientWidth) / 2, (one.scrollHeight - one.clientHeight) / 2);
    one.addEventListener("scroll", () => {
      for (const other of windows) {
        if (other !== one && (other.scrollLeft !== one.scrollLeft || other.scrollTop !== one.scrollTop)) {
          other.scrollTo(one.scrollLeft, one.scrollTop);
        }
      }
    });
  }
}
