// What the OpenFeature SDK for servers on Node gets over OFREP: one JSON object on standard output.
//
// Usage: server.cjs URL TOKEN
const { OpenFeature } = require('@openfeature/server-sdk');
const { OFREPProvider } = require('@openfeature/ofrep-provider');

const [url, token] = process.argv.slice(2);

const client = async (name, token) => {
  const provider = new OFREPProvider({ baseUrl: url, headers: [['Authorization', `Bearer ${token}`]] });
  await OpenFeature.setProviderAndWait(name, provider);
  return OpenFeature.getClient(name);
};

const told = (d) => [d.value, d.variant ?? null, d.reason, d.errorCode ?? null, d.errorMessage ?? null];

(async () => {
  const anna = { targetingKey: 'anna', plan: 'pro', score: 81, tags: ['a', 'b'] };
  const flags = await client('known', token);
  const answers = {
    switch: told(await flags.getBooleanDetails('switch', false, anna)),
    off: told(await flags.getBooleanDetails('off', true, anna)),
    text: told(await flags.getStringDetails('text', 'default', anna)),
    whole: told(await flags.getNumberDetails('whole', 0, anna)),
    float: told(await flags.getNumberDetails('float', 0, anna)),
    object: told(await flags.getObjectDetails('object', {}, anna)),
    named: told(await flags.getStringDetails('named', 'default', anna)),
    rule: told(await flags.getBooleanDetails('rule', false, anna)),
    listed: told(await flags.getBooleanDetails('listed', false, anna)),
    'of another type': told(await flags.getNumberDetails('text', 7, anna)),
    unknown: told(await flags.getBooleanDetails('unknown', true, anna)),
    nobody: told(await flags.getBooleanDetails('listed', true)),
    'nobody needed': told(await flags.getBooleanDetails('switch', false)),
    metadata: (await flags.getBooleanDetails('switch', false, anna)).flagMetadata,
    'wrong token': told(await (await client('unknown', 'wrong')).getBooleanDetails('switch', false, anna)),
  };
  const limited = await client('limited', 'limited');
  let answer;
  for (let n = 0; n < 40; n += 1) {
    answer = told(await limited.getBooleanDetails('switch', false, anna));
    if (answer[3]) break;
  }
  answers['too often'] = answer;
  answers.paused = told(await limited.getBooleanDetails('switch', false, anna));
  console.log(JSON.stringify(answers));
})();
