"""Local features with stochastic anonymisation."""
