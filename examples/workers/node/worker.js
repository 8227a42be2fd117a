import { serve } from "./snakepit-worker.js"; // first: it makes the wire private
import { cleanup, initialize, tools } from "./tools.js";

serve(tools, { initialize, cleanup });
