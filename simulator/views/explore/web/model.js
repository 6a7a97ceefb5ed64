"use strict";

/*
 * Follows what the Python model wrote down (simulator/views/explore/symbol.py, tape.py and
 * programs.py). There are no equations of the model here: only arithmetic, sums over a step's
 * operations, and the rules by which `bifurcate compare` picks a winner and a break-even point.
 *
 * makeModel(data) returns functions of a state: sizes (samples, context_tokens, decoded_tokens,
 * prompts, query_tokens), kv_heads, and places in the menus (model, gpu, weight_dtype, kv_dtype,
 * tensor_parallel, kernel, execution, kv_layout).
 */
function makeModel(data) {
  const operandsOf = Object.values(data.operations);
  const places = ["model", "gpu", "kv_heads", "weight_dtype", "kv_dtype", "tensor_parallel"];
  places.push("kernel", "execution");
  // "Infinity" is a text there.
  const tapes = data.tapes.map((tape) => tape.map(Number));
  const columns = data.columns.map((column) => column.map(Number));
  const registers = new Float64Array(
    1 + Math.max(...data.structures.map(([variables, code]) => variables + code.length)),
  );

  /* The work of numpy's functions of the same names; a comparison is 1 or 0. */
  const arithmetic = {
    add: (a, b) => a + b,
    subtract: (a, b) => a - b,
    multiply: (a, b) => a * b,
    divide: (a, b) => a / b,
    floor_divide: (a, b) => Math.floor(a / b),
    remainder: (a, b) => a - b * Math.floor(a / b),
    rint: (a) => (Math.abs(a % 1) === 0.5 ? 2 * Math.round(a / 2) : Math.round(a)),
    negative: (a) => -a,
    maximum: (a, b) => (a > b ? a : b),
    minimum: (a, b) => (a < b ? a : b),
    power: (a, b) => a ** b,
    sqrt: (a) => Math.sqrt(a),
    square: (a) => a * a,
    greater: (a, b) => (a > b ? 1 : 0),
    greater_equal: (a, b) => (a >= b ? 1 : 0),
    less: (a, b) => (a < b ? 1 : 0),
    less_equal: (a, b) => (a <= b ? 1 : 0),
    equal: (a, b) => (a === b ? 1 : 0),
    not_equal: (a, b) => (a !== b ? 1 : 0),
    where: (a, b, c) => (a ? b : c),
  };
  const compute = Object.keys(data.operations).map((name) => arithmetic[name]);

  /* Follow a tape from the values of all variables to those of its outputs; of some, on a GPU. */
  function follow(number, inputs, gpu) {
    const tape = tapes[number];
    const [variables, code, outputs] = data.structures[tape[0]];
    const value = (operand) => (operand < 0 ? tape[variables - operand] : registers[operand]);
    for (let index = 0; index < variables; index += 1) {
      const place = tape[index + 1];
      registers[index] = place < 0 ? columns[-1 - place][gpu] : inputs[place];
    }
    let next = variables;
    for (let at = 0; at < code.length; next += 1) {
      const opcode = code[at];
      const count = operandsOf[opcode];
      const first = value(code[at + 1]);
      const second = count > 1 ? value(code[at + 2]) : 0;
      const third = count > 2 ? value(code[at + 3]) : 0;
      registers[next] = compute[opcode](first, second, third);
      at += 1 + count;
    }
    return outputs.map(value);
  }

  /* A model with one of its numbers of KV heads: its sizes, and how it is computed. */
  function modelOf(state) {
    const model = data.models[state.model];
    const at = model.choices.indexOf(state.kv_heads);
    return { ...model, numbers: model.numbers[at], splits: model.splits[at], ...data.plans[model.plans[at]] };
  }

  /* The values of all variables, in the order of programs.py. */
  function variablesOf(state) {
    const { resident_blocks, memory_bytes: card_bytes } = data.gpus[state.gpu];
    const { places, numbers, kv_bytes: cached, group_bytes: bytes } = modelOf(state);
    const values = { ...state, resident_blocks, card_bytes };
    const gpus = data.choices.tensor_parallel[state.tensor_parallel];
    const found = [...data.variables.map((name) => values[name]), gpus, cached[state.kv_dtype]];
    found.push(...bytes[state.weight_dtype]);
    numbers.forEach((number, at) => {
      found[places[at]] = number;
    });
    return found;
  }

  /* Every way to keep and read the context; null if the page has none, or the model cannot. */
  function waysOf(state) {
    const { splits, ways } = modelOf(state);
    const gpus = data.choices.tensor_parallel[state.tensor_parallel];
    if (!splits.includes(gpus) || (gpus > 1 && !data.gpus[state.gpu].linked)) return null;
    return ways[state.weight_dtype][state.kernel][state.execution];
  }

  /* What was recorded for models with the numbers of this one: the first whose guards hold. */
  function recorded(part, variables) {
    const holds = ([guards, expected]) =>
      guards === null ||
      follow(guards, variables).every((value, at) => Number(value) === expected[at]);
    return data.recordings[part].find(holds)[2];
  }

  /* What each form of a way needs: the operations of its step, its memory's tape, its interval. */
  const kept = new Map();

  function programsOf(state, way) {
    const key = `${way} ${places.map((name) => state[name])}`;
    if (!kept.has(key)) {
      const variables = variablesOf(state);
      const ways = [...data.layouts, "bifurcated"];
      const forms = waysOf(state)[ways.indexOf(way)];
      const programs = forms.map(([around, attention, memory, interval]) => {
        const [before, after] = recorded(around, variables);
        return {
          operations: [...before, ...recorded(attention, variables), ...after],
          memory: recorded(memory, variables),
          interval,
        };
      });
      kept.set(key, programs);
    }
    return kept.get(key);
  }

  /* Time every operation of a step, and hand each to `see`. */
  function walk(state, program, see) {
    const variables = variablesOf(state);
    const gpu = data.gpus[state.gpu];
    const low = data.models[state.model].kv_low[state.kv_dtype];
    for (const number of program.operations) {
      const [name, part, usual, ofLow, tape] = data.calls[number];
      const timing = low ? ofLow : usual;
      const ofGroups = gpu.times[timing];
      const time = Array.isArray(ofGroups) ? ofGroups[state.tensor_parallel] : ofGroups;
      if (time < 0) continue; // a collective, on a single GPU
      const quantities = follow(tape, variables);
      const times = follow(time, quantities, state.gpu);
      see(quantities.at(-1), times, quantities, data.timings[timing], data.names[name], part);
    }
  }

  /* Memory on one GPU. [bytes] */
  function memory(state, program) {
    const parts = follow(program.memory, variablesOf(state));
    const named = Object.fromEntries(data.memory_columns.map((name, at) => [name, parts[at]]));
    const holds = (bytes) => named.capacity_bytes >= bytes;
    const unsure = holds(named.low_bytes) ? "too close to call" : "does not fit";
    const verdict = holds(named.high_bytes) ? "fits" : unsure;
    return { ...named, fits: holds(named.total_bytes), verdict };
  }

  /* The column of a time, by name. */
  const column = Object.fromEntries(data.time_columns.map((name, at) => [name, at]));
  const roofColumns = data.roofs.map((roof) => column[`${roof}_s`]);

  /* Everything about one step. */
  function step(state, way) {
    const totals = {};
    const operations = [];
    const families = {};
    const sums = data.time_columns.map(() => 0);
    const { program } = brief(state, way);
    walk(state, program, (repeat, times, quantities, settings, name, part) => {
      /* A card that expands weights runs no kernel that quantises activations. */
      if (settings.kind === "quantise" && !times[0]) return;
      const one = {};
      settings.used.forEach((field, at) => {
        one[field] = quantities[at];
        totals[field] = (totals[field] || 0) + repeat * quantities[at];
      });
      times.forEach((time, at) => {
        sums[at] += repeat * time;
      });
      const byRoof = roofColumns.map((at) => times[at]);
      const seconds = times[column.device_s] + times[column.collective_s];
      const launched = one.launches ?? settings.launches ?? 1;
      const family = data.families[settings.kind];
      const spent = [seconds, byRoof[0], repeat * seconds ** 2, launched, times[column.cached_s]];
      const before = families[family] || [0, 0, 0, 0, 0];
      families[family] = spent.map((value, at) => before[at] + repeat * value);
      operations.push({
        name,
        part,
        dtype: settings.dtype || "bf16",
        repeat,
        seconds,
        flops: one.flops || 0,
        bytes: (one.bytes_read || 0) + (one.bytes_written || 0),
        bound: largest(byRoof),
      });
    });
    const sum = Object.fromEntries(data.time_columns.map((name, at) => [name, sums[at]]));
    const { device_s: device, host_s: host, collective_s: collective } = sum;
    const { total, bound } = bounded(sums);
    const peak = Math.max(sum.peak_memory_s, sum.peak_compute_s);
    const spent = [total, device, host, collective, peak, sum.stored_below_s, sum.stored_above_s];
    return {
      way,
      seconds: total,
      device_s: device,
      host_s: host,
      roofs: Object.fromEntries(data.roofs.map((roof) => [roof, sum[`${roof}_s`]])),
      bound,
      operations,
      totals,
      tokens_per_s: tokensAt(state, total),
      memory: memory(state, program),
      interval: interval(state, program.interval, spent, families),
    };
  }

  /* The time of a step and what binds it, from its sums. */
  function bounded(sums) {
    const [device, host] = [sums[column.device_s], sums[column.host_s]];
    const bound = host > device ? "launch" : largest(roofColumns.map((at) => sums[at]));
    return { total: Math.max(device, host) + sums[column.collective_s], bound };
  }

  /* Tokens that all sequences gain per second, if a step takes so long. */
  function tokensAt(state, seconds) {
    const { accepted_tokens: kept = 1, query_tokens: query = 1 } = { ...data.kept, ...state };
    return (state.prompts * state.samples * Math.min(kept, query)) / seconds;
  }

  /* Between which times a step lies, and the errors that make it so. */
  function interval(state, structure, spent, families) {
    const { formats } = data.models[state.model];
    const dtypes = data.formats[formats[state.weight_dtype][state.kv_dtype]];
    const inputs = [...spent];
    const [kernels, tape] = data.intervals[structure];
    for (const family of kernels) {
      const spread = data.gpus[state.gpu].spreads[family][dtypes[family]];
      inputs.push(...(families[family] || [0, 0, 0, 0, 0]), ...spread);
    }
    const [low, high, ...errors] = follow(tape, inputs);
    const known = !data.gpus[state.gpu].unknown[state.model];
    const ends = known ? { low, high } : { low: Math.min(spent[4], spent[0]), high: Infinity };
    return { structure, ...ends, errors };
  }

  /* Between which ratios the time of one step over another's lies. */
  function ratioInterval(first, second) {
    const [one, two] = [first.interval, second.interval];
    const tape = data.ratios[`${one.structure}:${two.structure}`];
    const inputs = [first.seconds, second.seconds, ...one.errors, ...two.errors];
    const known = Math.max(one.high, two.high) < Infinity;
    const [low, high] = known ? follow(tape, inputs) : [0, Infinity];
    return { low, high, verdict: verdict(low, high, first.memory, second.memory) };
  }

  /* What a time alone says of whether to bifurcate. */
  function byTime(low, high) {
    if (high < 1 + data.limits.tie) return "no";
    if (low > 1) return "yes";
    return high < Infinity ? "too close to call" : "not known";
  }

  /* Whether to bifurcate, as sure as the predictions are. */
  function verdict(low, high, standard, bifurcated) {
    if (!standard.fits && !bifurcated.fits) return "neither fits";
    const said = byTime(low, high);
    if (standard.fits === bifurcated.fits) return said;
    const only = bifurcated.fits ? "yes" : "no";
    const sure = ![standard, bifurcated].some((each) => each.verdict === "too close to call");
    return sure || only === said ? only : "too close to call";
  }

  /* What curves, maps and searches need of a step, in the fastest of its forms that fit; it is asked
     for again while a slider moves. */
  const known = new Map();

  function brief(state, way) {
    const key = `${way} ${data.variables.map((name) => state[name])} ${places.map((name) => state[name])}`;
    let found = known.get(key);
    if (found === undefined) {
      const forms = programsOf(state, way).map((program) => briefly(state, program));
      const better = (one, two) =>
        one.fits === two.fits ? two.seconds < one.seconds : two.fits;
      found = forms.reduce((best, form) => (better(best, form) ? form : best));
      found.shortest = Math.min(...forms.map((form) => form.seconds));
      if (known.size > 50000) known.clear();
      known.set(key, found);
    }
    return found;
  }

  function briefly(state, program) {
    const sums = data.time_columns.map(() => 0);
    walk(state, program, (repeat, times) => {
      for (let at = 0; at < column.cached_s; at += 1) sums[at] += repeat * times[at];
    });
    const { total: seconds, bound } = bounded(sums);
    return { program, seconds, bound, fits: memory(state, program).fits };
  }

  /* The first of the roofs with the largest value, as Python's max picks it. */
  function largest(values) {
    return data.roofs[values.indexOf(Math.max(...values))];
  }

  /* Standard attention in the layout asked and over one stored context, bifurcated, and who wins. */
  function compare(state) {
    const layout = data.layouts[state.kv_layout];
    const standard = step(state, layout);
    const stored = layout === "shared" ? standard : step(state, "shared");
    const bifurcated = step(state, "bifurcated");
    const speedup = standard.seconds / bifurcated.seconds;
    const read = bifurcated.totals.kv_bytes_read || 0;
    return {
      standard,
      stored,
      bifurcated,
      speedup,
      kv_io_ratio: read ? (standard.totals.kv_bytes_read || 0) / read : 1,
      winner: winner(speedup, standard.memory.fits, bifurcated.memory.fits),
    };
  }

  function winner(speedup, standardFits, bifurcatedFits) {
    if (standardFits !== bifurcatedFits) return standardFits ? "standard" : "bifurcated";
    if (Math.abs(speedup - 1) < data.limits.tie) return "tie";
    return speedup > 1 ? "bifurcated" : "standard";
  }

  /* From where on bifurcated is faster, all else equal; null if it is not at the end. */
  function breakEven(state, field) {
    if (!state.context_tokens) return null; // nothing is shared
    const gain = (value) => {
      const changed = { ...state, [field]: value };
      const standard = brief(changed, data.layouts[state.kv_layout]);
      return standard.seconds / brief(changed, "bifurcated").shortest;
    };
    const after = field === "context_tokens" ? data.limits.split : 1;
    return fromWhereOn(gain, 1, data.limits[field], after);
  }

  /* From where on a ratio is above 1, as from_where_on in simulator/answers/search.py looks for it. */
  function fromWhereOn(ratio, low, high, after) {
    let above = high;
    let now = ratio(above);
    if (now <= 1) return null;
    while (above > low) {
      const near = 2 ** (-1 / data.limits.per_octave);
      const trial = Math.floor(above * Math.min(data.limits.safe_ratio / now, near));
      const aligned = Math.floor((trial - 1) / after) * after + 1;
      const next = Math.max(low, Math.min(above - 1, aligned));
      now = ratio(next);
      if (now <= 1) return halved((value) => ratio(value) > 1, next, above);
      above = next;
    }
    return low;
  }

  /* The most samples that fit and decode a step within some seconds, surely and as far as one can say;
     null if not even one does. */
  function mostSamples(state, way, seconds = Infinity) {
    const { program } = brief(state, way);
    const held = mostFor(state, (at) => memory(at, program).fits);
    const within = (time) => seconds === Infinity || time() <= seconds;
    const inTime = (at) => within(() => brief(at, way).seconds);
    const surely = (at) =>
      memory(at, program).verdict === "fits" && within(() => step(at, way).interval.high);
    const timely = held && mostFor(state, inTime, held);
    return { surely: timely && mostFor(state, surely, timely), perhaps: timely };
  }

  /* The largest number of samples, up to an end, for which a condition holds; null if not for one. */
  function mostFor(state, holds, end = data.limits.count) {
    const fails = (samples) => !holds({ ...state, samples });
    if (fails(1)) return null;
    return fails(end) ? halved(fails, 1, end) - 1 : end;
  }

  function halved(condition, no, yes) {
    while (yes - no > 1) {
      const middle = Math.floor((no + yes) / 2);
      if (condition(middle)) yes = middle;
      else no = middle;
    }
    return yes;
  }

  return {
    ...{ follow, step, brief, compare, winner, ratioInterval, breakEven },
    ...{ mostSamples, tokensAt, runs: (state) => waysOf(state) !== null },
  };
}

if (typeof module !== "undefined") module.exports = { makeModel };
