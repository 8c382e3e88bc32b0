// A program that uses the API through the types of openapi-typescript, with openapi-fetch.
//
// `node client.js URL TOKEN` prints the results as JSON, as client.py does.
import createClient from "openapi-fetch";
import type { paths } from "./schema.js";

const [url, token] = process.argv.slice(2) as [string, string];
const client = createClient<paths>({
  baseUrl: url,
  headers: { Authorization: `Bearer ${token}` },
});

function found<T>(answer: { data?: T; error?: unknown }): T {
  if (answer.data === undefined) throw new Error(JSON.stringify(answer.error));
  return answer.data;
}

const connected = found(
  await client.POST("/v1/user-integrations", {
    params: { header: { "Idempotency-Key": "typescript" } },
    body: {
      integration_domain: "locked",
      user_id: "ann",
      config: { name: "typescript" },
      credentials: { password: "fine" },
    },
  }),
);
const account = { path: { user_integration_id: connected.id } };

const listed: string[] = [];
let after: string | null | undefined;
do {
  const page = found(
    await client.GET("/v1/user-integrations", {
      params: { query: { user_id: "ann", limit: 1, after: after ?? undefined } },
    }),
  );
  listed.push(...page.items.map((item) => item.name));
  after = page.cursor;
} while (after !== null);

const requested = found(
  await client.POST("/v1/user-integrations/{user_integration_id}/sync", { params: account }),
);
const run = found(
  await client.GET("/v1/runs/{run_id}", { params: { path: { run_id: requested.run_id } } }),
);

const { items } = found(
  await client.GET("/v1/user-integration-content", { params: { query: { q: "invoice" } } }),
);
const [item] = items;
if (item === undefined) throw new Error("the search finds nothing");
const raw: ArrayBuffer = found(
  await client.GET("/v1/user-integration-content/{content_id}/raw", {
    params: { path: { content_id: item.id } },
    parseAs: "arrayBuffer",
  }),
);
const exported: ArrayBuffer = found(
  await client.GET("/v1/export", { params: { query: { format: "csv" } }, parseAs: "arrayBuffer" }),
);

const changes: string[] = [];
let cursor: string | undefined;
for (let more = true; more; ) {
  const page = found(
    await client.GET("/v1/changes", {
      params: { query: { after: cursor, limit: 1, include: "content" } },
    }),
  );
  changes.push(...page.changes.map((one) => `${one.change} ${one.content?.external_id}`));
  ({ cursor, more } = page);
}

const renamed = await client.PATCH("/v1/user-integrations/{user_integration_id}", {
  params: { ...account, header: { "If-Match": '"another"' } },
  body: { name: "new" },
});
const deleted = await client.DELETE("/v1/user-integrations/{user_integration_id}", {
  params: { ...account, query: { content: "delete", now: true } },
});
const gone = await client.GET("/v1/user-integrations/{user_integration_id}", { params: account });
const invalid = await client.GET("/v1/runs", { params: { query: { limit: 100_000 } } });

console.log(
  JSON.stringify({
    listed,
    run: run.state,
    found: items.map((one) => one.external_id),
    raw: Buffer.from(raw).toString("hex"),
    exported: Buffer.from(exported).subarray(0, 10).toString(),
    changes,
    renamed: renamed.error?.code,
    deleted: deleted.response.status,
    gone: gone.error?.code,
    invalid: invalid.error?.errors?.map((one) => one.where),
  }),
);
