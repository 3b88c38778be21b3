// What is selected: a kernel, or an op and with it its kernel.

const selection = { group: null, op: null };
const watchers = [];
/** Has `watch` called when another thing is selected. */
const onSelect = watch => watchers.push(watch);

function select(group, op = null) {
  if (selection.group === group && selection.op === op) return;
  Object.assign(selection, { group, op });
  if (op !== null) say(`Op ${op}, ${names[group]}, ${time(ops[op].work_ns.median)}`);
  else if (group !== null) say(`Kernel ${names[group]}, ${time(groups[group].work_ns)}`);
  else say("Nothing selected");
  watchers.forEach(watch => watch());
}

const selectOp = op => select(groupOf[op], op);
const clear = () => select(null);

/** Whether what belongs to this op stands back behind what is selected. */
function isBack(op) {
  return selection.op !== null ? selection.op !== op : selection.group !== null && selection.group !== groupOf[op];
}
