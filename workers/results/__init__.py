"""What tasks return, and how it travels and is stored.

Enter at ``types``; ``codec`` packs them, ``backend`` is Celery's result back end. It knows no task.
"""
