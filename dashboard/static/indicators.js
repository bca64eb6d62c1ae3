// Indicators of the bars at hand, defined as in the warehouse: moving averages, RSI and VWAP. Pure functions.
// Each returns an array as long as its input, with null until its window is full.

/** Simple moving average. */
export function movingAverage(values, length) {
  let sum = 0;
  return values.map((value, at) => {
    sum += value - (at >= length ? values[at - length] : 0);
    return at >= length - 1 ? sum / length : null;
  });
}

/** Cutler's RSI: simple averages of the last gains and losses. 50 where no price moved. */
export function relativeStrength(closes, length = 14) {
  const gains = closes.map((close, at) => (at ? Math.max(0, close - closes[at - 1]) : 0));
  const losses = closes.map((close, at) => (at ? Math.max(0, closes[at - 1] - close) : 0));
  return closes.map((_, at) => {
    if (at < length) return null;
    let gain = 0, loss = 0;
    for (let back = 0; back < length; back++) {
      gain += gains[at - back];
      loss += losses[at - back];
    }
    return gain + loss === 0 ? 50 : (100 * gain) / (gain + loss);
  });
}

/** VWAP since each session's open, from bars that have a VWAP of their own. `days` names the session of each bar. */
export function sessionVwap(vwaps, volumes, days) {
  let turnover = 0, shares = 0;
  return vwaps.map((vwap, at) => {
    if (at === 0 || days[at] !== days[at - 1]) turnover = shares = 0;
    turnover += (vwap ?? 0) * volumes[at];
    shares += volumes[at];
    return shares ? turnover / shares : null;
  });
}
