"""What a hostile agent tries. These modules run in containers and nowhere else.

Their text is sent into a container (`coding_agents.verify.program`), where one function of them is run as the agent:
standard library only, imports of nothing else, arguments and results are JSON. Nothing here judges: each function tells
what the kernel, the guest or the host answered, and who sent it decides what that means. The host imports none of them.
"""
