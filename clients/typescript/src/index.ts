/** What the generated stubs lack: who calls, what a refusal says, and imports that outlive their connections. */
export { type Identity, calledBy } from "./identity.js";
export { Import } from "./importing.js";
export { type Refusal, refusalOf } from "./refusals.js";
