"""One task from the command line: chunk, embed, complete, image.

Enter at the command's module; ``task_client`` has what they share: a broker, a worker if nobody else has one, the task
and its result. They know nothing of lanes or HTTP.
"""
