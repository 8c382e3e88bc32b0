// Reads mails with node's mailparser and postal-mime: a line of JSON for each path on stdin.
//
//     node tools/mail_node.mjs FOLDER
//
// FOLDER has node_modules with the readers. A reader that is not installed has no key.

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const MAX_SECONDS = 20;
const require = createRequire(pathToFileURL(`${process.argv[2]}/x.js`));

async function load(name) {
  try {
    return await import(pathToFileURL(require.resolve(name)));
  } catch {
    return null;
  }
}

const people = (list) =>
  (list ?? []).flatMap((each) =>
    each.group?.length ? people(each.group) : [[each.name ?? "", each.address ?? ""]]);

const file = (name, type, content) => {
  const data = Buffer.from(content ?? "");
  return { name: name ?? null, type: type ?? "", data: data.toString("base64"),
    hash: createHash("sha256").update(data).digest("hex") };
};

const values = (many) => (many ? [].concat(many).flatMap((each) => each.value) : []);

const readers = {};
const mailparser = await load("mailparser");
if (mailparser) {
  readers.mailparser = async (source) => {
    const mail = await mailparser.simpleParser(source, { maxHtmlLengthToParse: 20e6 });
    return { text: mail.text ?? "", html: mail.html || "", subject: mail.subject ?? null,
      from: people(values(mail.from)), to: people(values(mail.to)), cc: people(values(mail.cc)),
      date: mail.date ?? null,
      files: mail.attachments.map((each) =>
        file(each.filename, each.contentType, each.content)) };
  };
}
const postal = await load("postal-mime");
if (postal) {
  readers["postal-mime"] = async (source) => {
    const mail = await postal.default.parse(source);
    return { text: mail.text ?? "", html: mail.html ?? "", subject: mail.subject ?? null,
      from: people(mail.from ? [mail.from] : []), to: people(mail.to), cc: people(mail.cc),
      date: mail.date ?? null,
      files: mail.attachments.map((each) =>
        file(each.filename, each.mimeType, each.content)) };
  };
}

for await (const path of createInterface({ input: process.stdin })) {
  const source = readFileSync(path), found = {};
  for (const [name, read] of Object.entries(readers)) {
    let timer;
    const late = new Promise((_, fail) => {
      timer = setTimeout(() => fail(new Error("too slow")), MAX_SECONDS * 1000);
    });
    try {
      found[name] = await Promise.race([read(source), late]);
    } catch (error) {
      found[name] = { error: String(error).slice(0, 200) };
    } finally {
      clearTimeout(timer);
    }
  }
  process.stdout.write(`${JSON.stringify(found)}\n`);
}
