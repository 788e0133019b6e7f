# What is changed of Gemini CLI's bundle: functions that return in their first line.

# In a folder that it trusts it would take any variable from the repository's .gemini/.env, for all that it starts.
s/^function findEnvFile\(.*\) \{$/& return null;/

# Its settings say that there are no hooks, as in none of them ours could stand alone: those of repository, home and
# extensions would join it. So there is one, root's, which no settings lead to.
s/^  getEnableHooks\(\) \{$/& return true;/
s#^  processHooksFromConfig\(\) \{$#& return this.registerHook({ type: "command", command: "timeout 2 /usr/lib/coding-agents/tool-hook || :", timeout: 2500 }, "BeforeTool", { source: "system" });#
