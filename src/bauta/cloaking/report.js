for (const box of document.querySelectorAll(".compare")) {
  const range = box.querySelector("input");
  const show = () => box.style.setProperty("--cut", range.value + "%");
  range.addEventListener("input", show);
  show();
}
